"""Manifests (which labels are true in which clip), folds, inspection, and the spectrograms of clips."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
