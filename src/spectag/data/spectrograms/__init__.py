"""The spectrograms of clips: kept on disk, as PNG images, and as inputs of a network."""
