"""Scores of several runs: means over repeats, and paired differences between arms."""

import statistics
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from fuzzyseg.report.paired import Interval, mean_std, paired
from fuzzyseg.report.read import Score


def comparison(scores: Sequence[Score]) -> dict[str, Any]:
    """Return the table of arms, and all paired differences between two arms with the same number of labelled images."""
    arms = list(dict.fromkeys(score.arm for score in scores))
    label_counts = sorted({score.labelled for score in scores})
    rows = []
    for count, arm in product(label_counts, arms):
        group = [score for score in scores if (score.arm, score.labelled) == (arm, count)]
        if group:
            values = [score.miou for score in group]
            spread = statistics.stdev(values) if len(group) > 1 else 0.0
            row = {"arm": arm, "labelled": count, "runs": len(group), "mean": statistics.mean(values), "std": spread}
            best = [score.best for score in group if score.best is not None]
            row |= {"text": mean_std(values), "best": mean_std(best), "values": values}
            rows.append(row)
    differences: list[dict[str, Any]] = []
    for count, second, first in product(label_counts, arms, arms):
        interval, seeds, excluded = difference(scores, first, second, count)
        if first != second and (interval is not None or excluded):
            differences.append({"first": first, "second": second, "labelled": count, "interval": interval,
                                "seeds": seeds, "excluded": excluded})  # fmt: skip
    first = reference(scores)
    better = [d for d in differences if d["second"] == first and d["interval"] is not None and d["interval"].gain]
    return {"rows": rows, "differences": differences, "arms": arms, "reference": first, "better": better}


def reference(scores: Iterable[Score]) -> str:
    """Return the arm that others are compared with: the first supervised one, otherwise the first."""
    ordered = sorted(scores, key=lambda score: not score.supervised)
    return ordered[0].arm if ordered else ""


def difference(
    scores: Sequence[Score], first: str, second: str, labelled: int
) -> tuple[Interval | None, list[str], int]:
    """Return the paired difference (first - second), descriptions of its repeats, and the number of excluded pairs.

    The runs of a pair have the same seed, subset and fold. A pair is excluded as not comparable if the recorded splits,
    evaluation protocols, training steps or initial weights differ, or if one of its runs is also in another pair.
    """
    one, two = ([s for s in scores if (s.arm, s.labelled) == (arm, labelled)] for arm in (first, second))
    pairs = [(a, b) for a, b in product(one, two) if a.repeat == b.repeat]
    comparable = [pair for pair in pairs if _comparable(*pair)]
    fair = [(a, b) for a, b in comparable if sum(a is c or b is d for c, d in comparable) == 1]
    interval = paired([a.miou - b.miou for a, b in fair], fair[0][0].folds if fair else None)
    names = ("seed", "subset", "fold")
    seeds = [
        ", ".join(f"{name} {value}" for name, value in zip(names, one.repeat, strict=True) if value is not None)
        for one, _ in fair
    ]
    return interval, seeds, len(pairs) - len(fair)


def _comparable(one: Score, two: Score) -> bool:
    known = zip(one.starts or (), two.starts or (), strict=False)  # compares the networks that both have
    known_values = (one.split, two.split), (one.protocol, two.protocol), (one.steps, two.steps)
    same = all(a is None or b is None or a == b for a, b in known_values)
    return same and all(first == second for first, second in known)
