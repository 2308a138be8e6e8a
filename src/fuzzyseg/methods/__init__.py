"""The methods by name: one paper each."""

from __future__ import annotations

from fuzzyseg.methods.base import Facts, Method, MethodConfig, Progress, Role, Step
from fuzzyseg.methods.cac import CAC
from fuzzyseg.methods.cps import CPS
from fuzzyseg.methods.pc2seg import PC2Seg
from fuzzyseg.methods.supervised import Supervised
from fuzzyseg.methods.u2pl import U2PL

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "cps": CPS,
    "u2pl": U2PL,
    "cac": CAC,
    "pc2seg": PC2Seg,
}

__all__ = [
    "CAC",
    "CPS",
    "METHODS",
    "U2PL",
    "Facts",
    "Method",
    "MethodConfig",
    "PC2Seg",
    "Progress",
    "Role",
    "Step",
    "Supervised",
]
