"""Prediction outputs: rasters and arrays per image, and annotations for annotation tools."""

from fuzzyseg.inference.outputs.annotations import ANNOTATIONS, POLYGONS
from fuzzyseg.inference.outputs.arrays import ARRAYS
from fuzzyseg.inference.outputs.band import Band, Fuzzy
from fuzzyseg.inference.outputs.rasters import RASTERS

KINDS = (*RASTERS, *ARRAYS, *ANNOTATIONS)
"""Names of all outputs. Rasters and arrays are written during prediction, annotations at the end, from the masks."""

__all__ = ["ANNOTATIONS", "ARRAYS", "KINDS", "POLYGONS", "RASTERS", "Band", "Fuzzy"]
