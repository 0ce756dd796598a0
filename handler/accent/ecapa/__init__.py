"""ECAPA-TDNN accent models in SpeechBrain's layout (Desplanques et al., 2020)."""
