"""Export of a trained model for use without fuzzyseg, and verification of the result against PyTorch."""

from fuzzyseg.inference.export.export_model import export_model
from fuzzyseg.inference.export.formats import FORMATS
from fuzzyseg.inference.export.verify import Agreement, ExportError

__all__ = ["FORMATS", "Agreement", "ExportError", "export_model"]
