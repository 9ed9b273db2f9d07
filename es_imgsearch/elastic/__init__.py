"""All that knows Elasticsearch: the client, request bodies, and what is stored.

`client` connects, `error_mapping` translates foreign errors, `mapping` and the `*queries` modules
are pure functions that return bodies, and `store.Store` holds the operations on one index.
"""
