"""A member of an ensemble: one network, frozen or fine-tuned."""
