"""Better labels: label errors, near-duplicates, what to label next, search by example."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
