"""Searches that a running `serve` answers, in place of Elasticsearch and a model.

service_search   `ServiceSearch`: the methods of the client, blocking
operations       the same as request flows, which `ImageSearch` and `AsyncImageSearch` run
bodies           arguments → bodies of requests, answers → `Hits`; pure functions
running          services of this user on this machine, which announce themselves

Nothing here imports NumPy, Pillow or Elasticsearch's client before a picture is asked with.
"""
