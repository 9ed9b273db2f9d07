"""Step 2b: describers, plug-ins that add fields to a picture's document.

Entry points of the group `es_imgsearch.describers` are found by `registry`.
"""
