"""Functions and data for several test modules."""
