"""Rights of API keys: roles, and the keys made with them."""
