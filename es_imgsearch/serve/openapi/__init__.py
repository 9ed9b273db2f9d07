"""The description of the API, `/openapi.json`: errors, examples, who may ask."""
