"""Everything that knows Elasticsearch; no other package imports its client.

Open this module                  for
store                             `Store`: all operations on one index; start here
client                            connecting; sending a request; paging with search_after
server                            versions of Elasticsearch; the node that requests go through
error_mapping                     how errors of the client become those of `errors`
requests                          requests as values, and readers of their answers
bulk, retry                       bulk writes; backoff, outages and what is retried
documents, listings, rewrites     documents by id; by root and path; changed as a whole
mapping                           bodies of indices and templates; companion indices
meta, meta_entries                `_meta` of an index, typed: encoder, tuning, codes, curves
naming, generations, switching    indices behind the alias: names; create and drop; switch
queries, region_queries           bodies of searches; num_candidates; scores
state, leases                     documents that processes share; claims that expire
"""
