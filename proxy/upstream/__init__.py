"""TorchServe seen from here: which versions it serves, and how a clip gets its score."""
