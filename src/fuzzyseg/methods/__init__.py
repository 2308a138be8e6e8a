"""The methods by name: one paper each."""

from __future__ import annotations

from fuzzyseg.methods.base import Facts, Method, MethodConfig, Progress, Role, Step
from fuzzyseg.methods.cps import CPS
from fuzzyseg.methods.supervised import Supervised
from fuzzyseg.methods.vat import VAT

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "cps": CPS,
    "vat": VAT,
}

__all__ = ["CPS", "METHODS", "VAT", "Facts", "Method", "MethodConfig", "Progress", "Role", "Step", "Supervised"]
