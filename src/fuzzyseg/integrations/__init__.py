"""Plug-ins for annotation tools. X-AnyLabeling needs none: it loads the exported ONNX file."""
