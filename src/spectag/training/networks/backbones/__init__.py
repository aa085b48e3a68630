"""Networks that turn a spectrogram into features."""
