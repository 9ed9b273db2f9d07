"""A simulated world: clock, threads, files and transport, under the product's own code."""
