"""Backbones: networks from a spectrogram to feature maps."""
