"""A trained model: its folder on disk, and how it tags a sound. Nothing here needs PyTorch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
