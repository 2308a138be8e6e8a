"""The methods by name: one paper each."""

from __future__ import annotations

from fuzzyseg.methods.ael import AEL
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Progress, Role, Step
from fuzzyseg.methods.cps import CPS
from fuzzyseg.methods.cutmix_seg import CutMixSeg
from fuzzyseg.methods.fixmatch import FixMatch
from fuzzyseg.methods.mean_teacher import MeanTeacher
from fuzzyseg.methods.pseudoseg import PseudoSeg
from fuzzyseg.methods.supervised import Supervised
from fuzzyseg.methods.unimatch import UniMatch
from fuzzyseg.methods.unimatch_v2 import UniMatchV2

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "cps": CPS,
    "ael": AEL,
    "cutmix_seg": CutMixSeg,
    "fixmatch": FixMatch,
    "mean_teacher": MeanTeacher,
    "pseudoseg": PseudoSeg,
    "unimatch": UniMatch,
    "unimatch_v2": UniMatchV2,
}

__all__ = [
    "AEL",
    "CPS",
    "METHODS",
    "CutMixSeg",
    "Facts",
    "FixMatch",
    "MeanTeacher",
    "Method",
    "MethodConfig",
    "Progress",
    "PseudoSeg",
    "Role",
    "Step",
    "Supervised",
    "UniMatch",
    "UniMatchV2",
]
