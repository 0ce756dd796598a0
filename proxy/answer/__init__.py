"""`POST /v1/accent`: the whole answer, in the words of people."""
