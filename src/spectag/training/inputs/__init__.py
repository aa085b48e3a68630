"""What networks are trained on: augmented and mixed clips in batches, and stored features."""
