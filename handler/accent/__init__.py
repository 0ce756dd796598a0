"""Accent inference: audio bytes in, an accent document or a refusal out.

This package knows neither TorchServe nor a web framework. Its modules import each other
downwards only. From an upload to its answer: decode (limits, resample, waveform), speech,
scoring, engine or compiled (features, network), classifier. From a folder to an engine:
specification, loading, selection. How many threads compute: cores, quota.
"""
