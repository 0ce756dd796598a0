"""`make bench`: the service beside what it could have been, on one machine, over the same clips."""
