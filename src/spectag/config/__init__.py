"""Every setting: frozen, validated models of what a person may choose. Nothing else is imported here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
