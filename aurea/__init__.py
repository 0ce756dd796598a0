"""What surrounds the accent core: archives, models, versions, the service, the lab."""

# Of the project: the build reads it here, the API and the proxy's metrics show it.
__version__ = "0.1.0"
