"""A speech recogniser's encoder with a small probe on its frames."""
