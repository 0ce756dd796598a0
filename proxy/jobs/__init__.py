"""`/v1/jobs`: many files in one request, scored behind all who wait for their answer."""
