"""The options of fuzzy positive learning: what may be chosen, and the check that says what was found instead."""

from __future__ import annotations

from typing import Literal, TypedDict, get_args

WeightKind = Literal["concave", "linear", "convex", "convex1", "none"]
Rule = Literal["n-1", "n", "continuous"] | int
Variant = Literal["paper", "official"]
Reduction = Literal["mean", "none"]


class SetOptions(TypedDict, total=False):
    """The options of every loss over the fuzzy positive set, by the names of `fuzzy_positive_loss`."""

    weight: WeightKind
    a: float
    k_cap: int | None
    rule: Rule
    variant: Variant
    balance: bool


def check_options(
    *,
    weight: str = "none",
    k_cap: int | None = None,
    rule: Rule = "n-1",
    variant: str = "paper",
    reduction: str = "mean",
    a: float = 50.0,
) -> None:
    """ValueError naming the option, the value found and what is allowed."""
    named = {"weight": (weight, WeightKind), "variant": (variant, Variant), "reduction": (reduction, Reduction)}
    for name, (value, kind) in named.items():
        if value not in get_args(kind):
            raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(get_args(kind))}")
    if k_cap is not None and not _counts(k_cap):
        raise ValueError(f"k_cap: found {k_cap!r}, expected None or a whole number from 1")
    if rule not in ("n-1", "n", "continuous") and not _counts(rule):
        raise ValueError(f"rule: found {rule!r}, expected 'n-1', 'n', 'continuous' or a fixed K, a whole number from 1")
    if not a > 0:
        raise ValueError(f"a: found {a!r}, expected a number above 0")


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
