"""Saved objects for Kibana 8.19: built from readable files, checked, imported."""
