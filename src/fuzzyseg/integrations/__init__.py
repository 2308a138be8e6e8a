"""Functions that annotation tools load. X-AnyLabeling needs none: it opens the exported ONNX file."""
