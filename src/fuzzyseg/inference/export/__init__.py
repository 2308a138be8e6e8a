"""Export of a trained model for use without fuzzyseg, and the comparison with PyTorch that it has to pass."""

from fuzzyseg.inference.export.formats import FORMATS
from fuzzyseg.inference.export.gate import Agreement, ExportError
from fuzzyseg.inference.export.write import export_model

__all__ = ["FORMATS", "Agreement", "ExportError", "export_model"]
