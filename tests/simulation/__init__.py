"""A simulated world: clock, threads, files and transport, under the product's own code.

    machine/      threads as greenlets, virtual time, a file system with events: one seed, one order
    elastic/      the simulated server, see `server`
    transport     requests that are lost, answered late, refused, or applied in part
    patches       puts all this under the product's modules (only module globals are replaced)
    pictures      a tiny format, its decoder, reading workers that are tasks, an encoder
    processes     the product's `init`, `watch`, `sync` and `reindex` as processes of a world
    operations    what users do to files; `rare_operations` and `troubles`: what else happens
    ledger        what the folders held, and so what the index has to hold; wrong deletions
    world         one interleaving: operations by seed, a quiet period, the check
    mutations     each mending taken back, and the seed in which the world finds it

Not covered: sidecars and describers, `serve` and searches, several encoder processes, decoders that
crash or hang, clocks that are set back, requests that the server executes after their timeout, and
more than one shard.
"""
