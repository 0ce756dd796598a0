"""The public contract over HTTP. Knows TorchServe by HTTP alone, and nothing of audio."""
