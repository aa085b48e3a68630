"""Similarity search: an index of recordings, and queries by example."""
