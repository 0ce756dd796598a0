"""What the service is compared with: each a process that answers the same contract."""
