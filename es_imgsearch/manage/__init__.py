"""Commands on a whole index.

They are init, status, verify, redescribe, reindex, export and import.
"""
