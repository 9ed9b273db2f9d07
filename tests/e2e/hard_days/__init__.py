"""Days on which something else fails: disks, memory, clocks, the index itself."""
