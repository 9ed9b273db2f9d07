"""Commands on a whole index: init, status, verify, redescribe, reindex, export and import."""
