"""What differs between servers: their versions; and how a request reaches one."""
