"""How much of the service a client gets, how often, and when it is its turn."""
