"""`make speech`: speech with a known accent, synthesised to train on."""
