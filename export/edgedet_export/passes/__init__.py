"""Rewrites of exported ONNX graphs, one a file: `(model) -> how many places were changed`."""
