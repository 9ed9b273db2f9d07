"""The service that gives thumbnails and originals by id: Kibana shows pictures through it."""
