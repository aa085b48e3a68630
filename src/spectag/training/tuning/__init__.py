"""Search for settings and for the learning rate."""
