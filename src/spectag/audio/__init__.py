"""From a file or a microphone to a waveform, a log-mel spectrogram and the input of a network."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
