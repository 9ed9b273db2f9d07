"""Parts of the simulated Elasticsearch server, see `tests.simulation.server`.

    fields ──▶ mapping ──▶ indices ──▶ names ──▶ writes, searching, admin ──▶ server
    (a value)  (a document) (one index)  (aliases)   (requests)

`tests/contract/test_simulated_server.py` compares it with the real server.
"""
