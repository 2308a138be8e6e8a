"""The methods by name: one paper each."""

from __future__ import annotations

from fuzzyseg.methods.adv_semseg import AdvSemSeg
from fuzzyseg.methods.base import Facts, Method, MethodConfig, Progress, Role, Step
from fuzzyseg.methods.cct import CCT
from fuzzyseg.methods.cps import CPS
from fuzzyseg.methods.cutmix_seg import CutMixSeg
from fuzzyseg.methods.fixmatch import FixMatch
from fuzzyseg.methods.gct import GCT
from fuzzyseg.methods.mean_teacher import MeanTeacher
from fuzzyseg.methods.supervised import Supervised
from fuzzyseg.methods.unimatch import UniMatch
from fuzzyseg.methods.vat import VAT

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "adv_semseg": AdvSemSeg,
    "cct": CCT,
    "cps": CPS,
    "cutmix_seg": CutMixSeg,
    "fixmatch": FixMatch,
    "gct": GCT,
    "mean_teacher": MeanTeacher,
    "unimatch": UniMatch,
    "vat": VAT,
}

__all__ = [
    "CCT",
    "CPS",
    "GCT",
    "METHODS",
    "VAT",
    "AdvSemSeg",
    "CutMixSeg",
    "Facts",
    "FixMatch",
    "MeanTeacher",
    "Method",
    "MethodConfig",
    "Progress",
    "Role",
    "Step",
    "Supervised",
    "UniMatch",
]
