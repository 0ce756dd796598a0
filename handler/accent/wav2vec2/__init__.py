"""wav2vec 2.0 accent models in SpeechBrain's layout (Baevski et al., 2020)."""
