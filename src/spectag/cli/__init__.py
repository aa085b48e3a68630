"""The command line: parse, one call, print. Each command is a module of `commands`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
