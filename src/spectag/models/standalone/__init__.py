"""A model as one ONNX file: from a waveform to probabilities, with the feature extraction and the calibration in it."""
