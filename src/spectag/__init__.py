"""Make taggers for sounds: a folder of recordings and a table of labels in, a tagger out.

>>> import spectag
>>> tagger = spectag.load("model")  # doctest: +SKIP
>>> tagger.tag("a.wav").top(3)  # doctest: +SKIP
"""

import os

import lazy_loader

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime: it would send usage data and store an ID

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
