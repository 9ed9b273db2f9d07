"""HTTP service of thumbnails and originals, for Kibana and browsers."""
