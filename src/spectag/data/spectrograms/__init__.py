"""Spectrograms of clips: the cache on disk, PNG images, and network inputs."""
