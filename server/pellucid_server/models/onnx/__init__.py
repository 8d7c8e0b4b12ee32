"""ONNX files: read and held against their settings, run by ONNX Runtime, converted to torch."""
