"""What surrounds the accent core: archives, models, versions, the service, the lab."""

__version__ = "0.1.0"
