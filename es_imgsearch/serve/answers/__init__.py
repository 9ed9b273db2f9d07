"""What the service finds: rankings, listings, duplicates, why a picture matched."""
