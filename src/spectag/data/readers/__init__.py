"""Readers of manifests, one module per format."""
