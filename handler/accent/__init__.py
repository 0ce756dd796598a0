"""Accent inference: audio bytes in, an accent document or a refusal out.

This package knows neither TorchServe nor a web framework. Its modules import each
other downwards only: errors <- audio <- speech, network <- engine, scoring <- classifier.
"""
