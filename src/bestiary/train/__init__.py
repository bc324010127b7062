"""Training: what a model is made to do."""
