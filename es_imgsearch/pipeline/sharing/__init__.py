"""Share the work on one root with other processes, by partitions."""
