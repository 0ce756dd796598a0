"""`make train`: from labelled speech to a model folder; `model` names the steps in order."""
