"""Files that hold predictions: rasters and arrays of an image, and annotations for the tools that correct them."""

from fuzzyseg.inference.outputs.annotations import ANNOTATIONS, POLYGONS, Annotated
from fuzzyseg.inference.outputs.arrays import ARRAYS
from fuzzyseg.inference.outputs.band import Band, Fuzzy
from fuzzyseg.inference.outputs.rasters import RASTERS

KINDS = (*RASTERS, *ARRAYS, *ANNOTATIONS)
"""Names of all outputs. Rasters and arrays are written with the prediction, annotations at the end, from the masks."""

__all__ = ["ANNOTATIONS", "ARRAYS", "KINDS", "POLYGONS", "RASTERS", "Annotated", "Band", "Fuzzy"]
