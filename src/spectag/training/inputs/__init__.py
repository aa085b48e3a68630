"""Training inputs: augmentation, batches, mixed clips, and features kept on disk."""
