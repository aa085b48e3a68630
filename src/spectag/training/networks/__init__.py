"""Networks in PyTorch: backbones with a head, losses, export to ONNX."""
