"""What surrounds the accent core: archives, models, versions, the service, the lab."""
