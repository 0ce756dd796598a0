"""The teacher: encoders trained on far more speech, and a probe that learns accents from them."""
