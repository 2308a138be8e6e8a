"""Options of Fuzzy Positive Learning, which are validated once and passed on as one object."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Required, Self, TypedDict, get_args

import torch
from torch import Tensor

WeightKind = Literal["concave", "linear", "convex", "convex1", "none"]
Rule = Literal["n-1", "n", "continuous"] | int
Variant = Literal["paper", "official"]

WEIGHT_CURVES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "concave": lambda m, q, a: torch.log1p(a * (m - q).clamp(min=0)) / torch.log1p(a * m),
    "linear": lambda m, q, a: (m - q).clamp(min=0) / m,
    "convex": lambda m, q, a: (m - q).clamp(min=0) / (m + 4 * q),
    "convex1": lambda m, q, a: (m - q).clamp(min=0) / (m + q),
    "none": lambda m, q, a: 1 + (m - m),  # propagates NaN
}
"""Weight curves (Eq. 11 and 16) by name; see `weight_curve`."""


class SetOptions(TypedDict, total=False):
    """Options of the pixel losses over the fuzzy positive set: those of `FPLOptions`, and `balance`."""

    weight: WeightKind
    a: float
    k_cap: int | None
    rule: Rule
    variant: Variant
    balance: bool


class SetKeywords(SetOptions, total=False):
    """All keyword arguments of the losses over the fuzzy positive set."""

    size: Required[Sequence[int]]
    valid: Required[Tensor]
    threshold: float | Tensor
    maps: bool


@dataclass(frozen=True)
class FPLOptions:
    """Options of the fuzzy positive set and its weight.

    weight, a: see `weight_curve`. k_cap, rule: see `assign_fuzzy_positives`. variant: `official` follows the published
    code (`fuzzyseg.losses.fpl.reference`). Raises ValueError for an invalid option, naming it, its value and the
    allowed values.
    """

    weight: WeightKind = "concave"
    a: float = 50.0
    k_cap: int | None = None
    rule: Rule = "n-1"
    variant: Variant = "paper"

    def __post_init__(self) -> None:
        check_choice("weight", self.weight, get_args(WeightKind))
        check_choice("variant", self.variant, get_args(Variant))
        if self.k_cap is not None and not _is_count(self.k_cap):
            raise ValueError(f"k_cap: found {self.k_cap!r}, expected None or an integer >= 1")
        if self.rule not in ("n-1", "n", "continuous") and not _is_count(self.rule):
            raise ValueError(f"rule: found {self.rule!r}, expected 'n-1', 'n', 'continuous' or an integer K >= 1")
        if not self.a > 0:
            raise ValueError(f"a: found {self.a!r}, expected a number above 0")

    @classmethod
    def of(cls, keywords: Mapping[str, Any]) -> Self:
        """Build the options from keywords, ignoring `balance`. Raises TypeError for unknown keywords."""
        unknown = keywords.keys() - SetOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unexpected keyword argument {', '.join(sorted(unknown))}")
        return cls(**{name: value for name, value in keywords.items() if name != "balance"})

    def cap(self, classes: int) -> int:
        """Return the maximum K for this number of classes. Raises ValueError if a fixed K is too large."""
        if isinstance(self.rule, int) and self.rule >= classes:
            raise ValueError(f"rule: found K = {self.rule} for {classes} classes, expected at most {classes - 1}")
        default = 3 if self.variant == "official" else classes
        return min(default if self.k_cap is None else self.k_cap, classes - 1)

    def continuous(self, classes: int) -> bool:
        """Return whether memberships can be fractional: the rule is continuous and K is not always 1."""
        return self.rule == "continuous" and self.cap(classes) > 1

    def weight_of(self, inside: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Compute the weight from the positives' total probability, the largest probability of a negative, and K."""
        m = inside / k if self.variant == "paper" else (inside + q) / (k + 1)
        return WEIGHT_CURVES[self.weight](m, q, self.a)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(choices)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


PAPER = FPLOptions()
"""The default options, as in the FPL paper."""
