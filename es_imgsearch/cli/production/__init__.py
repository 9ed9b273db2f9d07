"""Commands for running the service: keys and their rights, plans of sizes."""
