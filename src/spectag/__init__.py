"""Make taggers for sounds: a folder of recordings and a table of labels in, a tagger out.

>>> import spectag
>>> tagger = spectag.load("model")  # doctest: +SKIP
>>> tagger.tag("a.wav").top(3)  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
