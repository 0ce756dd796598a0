"""Many clips to a service that runs, over its public contract."""
