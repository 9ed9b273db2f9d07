"""Describers (step 2b): plug-ins that add fields to a picture's document.

`registry` finds them by the entry-point group `es_imgsearch.describers`.
"""
