"""The public port's connections: how many, how slow, how encrypted, and what HTTP itself asks."""
