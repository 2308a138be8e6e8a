"""Markdown tables of a sweep's rows: scores, paired differences and failures."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fuzzyseg.data.splits.validation import FEW
from fuzzyseg.data.text import markdown
from fuzzyseg.experiment.sweeps.grid import Cell, Grid
from fuzzyseg.report.paired import interval, mean_std
from fuzzyseg.run.logs import SCORE

Rows = Mapping[Cell, Mapping[str, Any]]
ONE_RUN = "One run each: another seed can change a score by more than these differences; `--seeds 3` gives intervals."


def tables(grid: Grid, rows: Rows, failed: Mapping[Cell, str] | None = None) -> str:
    """Return tables of scores (mIoU of the last checkpoint in per cent; mean and SD over seeds) and differences.

    rows: rows of finished runs. failed: reasons for failed runs.
    """
    parts = [f"## {markdown(grid.plan.title)}"]
    if grid.plan.about:
        parts.append(grid.plan.about.strip())
    if grid.plan.expected:
        parts.append(_beside(grid))
    if grid.init is not None:
        parts.append("Runs start from the given weights.")
    elif grid.plan.start is not None:
        parts.append(
            "Runs start from supervised pretraining (only on the labelled images), the same for all configurations of "
            "a labelled subset and seed."
        )
    if grid.folds is not None:
        parts.append(
            f"Cross-validation: the validation folds are {grid.folds} parts of the labelled images. Intervals allow "
            "for the overlap of their training images (Nadeau and Bengio, 2003)."
        )
    parts.append(_scores(grid, rows))
    arms = {cell.arm for cell in grid.cells}
    if any({*pair} <= arms for pair in grid.plan.pairs):
        parts.append(_pairs(grid, rows))
    parts += _notes(grid, rows)
    missing = [cell for cell in grid.cells if cell not in rows and cell not in (failed or {})]
    parts += [f"- {cell.name}: failed: {markdown(reason)}" for cell, reason in (failed or {}).items()]
    if missing:
        parts.append(f"Not run yet: {len(missing)} of {len(grid.cells)} ({', '.join(c.name for c in missing[:6])}"
                     f"{', ...' if len(missing) > 6 else ''}).")  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _scores(grid: Grid, rows: Rows) -> str:
    published, known = bool(grid.plan.expected), _has_ceilings(rows)
    optional = [*(["resolvable"] if known else []), *(["published"] if published else [])]
    table = [["arm", "labelled", "runs", "mIoU", *optional, "s/step", "MiB"]]
    for amount in grid.amounts:
        for arm in dict.fromkeys(cell.arm for cell in grid.cells):
            group = [rows[cell] for cell in grid.cells if (cell.arm, cell.labelled) == (arm, amount) and cell in rows]
            images = sorted({row["result"]["labelled"] for row in group})
            shown = amount or "all"
            shown += f" ({', '.join(map(str, images))})" if images and [amount] != list(map(str, images)) else ""
            cells = [arm, shown, str(len(group)), mean_std([miou(row) for row in group])]
            cells += [mean_std(_resolvable(group))] if known else []
            if published:
                cells.append(_published(grid, Cell(arm, amount, 0)))
            cells += [_middle([row.get("seconds_per_step") for row in group], "{:.2f}")]
            cells += [_middle([row.get("memory_mib") for row in group], "{:.0f}")]
            table.append(cells)
    legend = {
        "arm": "a compared configuration",
        "mIoU": "of the last checkpoint in %, mean ± standard deviation over the runs",
        "resolvable": "the same over the classes that the network's resolution can represent",
        "published": "score in the source",
        "s/step": "seconds per training step",
        "MiB": "peak memory",
    }
    words = "; ".join(f"{name}: {text}" for name, text in legend.items() if name in table[0])
    return f"{_markdown(table)}\n\n{words}."


def _beside(grid: Grid) -> str:
    """Describe how the published scores relate to the runs."""
    changed = sorted({*grid.recipe, *grid.settings} - {"data", "out"})
    text = "The published scores were measured in the setting of their sources"
    if changed:
        text += f"; these runs use a different one (set: {', '.join(changed)}), so compare differences only"
    cells = (Cell(arm, amount, 0) for arm in grid.plan.expected for amount in grid.amounts)
    brackets = any("(" in _published(grid, cell) for cell in cells)
    return text + (". In brackets: the amount of labels for which a score was published." if brackets else ".")


def _notes(grid: Grid, rows: Rows) -> list[str]:
    """Return the runs' notes by configuration, and notes on differing initial weights or code versions."""
    arms_by_sentence: dict[str, dict[str, None]] = {}
    for cell in grid.cells:
        for sentence in rows[cell]["result"].get("notes", []) if cell in rows else []:
            arms_by_sentence.setdefault(sentence, {})[cell.arm] = None
    lines = [f"- {markdown(', '.join(arms))}: {sentence}." for sentence, arms in arms_by_sentence.items()]
    for amount, repeat in dict.fromkeys((cell.labelled, cell.repeat) for cell in grid.cells):
        first: dict[str | None, list[str]] = {}
        for cell in grid.cells:
            if cell in rows and (cell.labelled, cell.repeat) == (amount, repeat):
                known = rows[cell].get("starts")
                start = "random" if known == [] else "not recorded" if known is None else str(known[0])
                first.setdefault(start, []).append(cell.arm)
        if len(first) > 1:
            named = zip(("seed", "subset", "fold"), repeat, strict=True)
            where = ", ".join([f"{amount or 'all'} labelled", *(f"{k} {n}" for k, n in named if n is not None)])
            groups = "; ".join(f"{start}: {markdown(', '.join(arms))}" for start, arms in first.items())
            lines.append(f"- {markdown(where)}: the initial weights differ ({groups}).")
    scores = [rows[cell]["result"]["last"] for cell in grid.cells if cell in rows and cell.fold is None]
    few = [score for score in scores if score.get("images", FEW) < FEW and score.get(f"{SCORE}_error") is not None]
    if few:
        points = 200 * statistics.median(score[f"{SCORE}_error"] for score in few)
        lines.append(
            f"- Scores of {few[0]['images']} validation images: two standard errors over the choice of images are "
            f"about {points:.1f} points (`--folds 5` validates on all labelled images)."
        )
    codes = [rows[cell].get("code") or {} for cell in grid.cells if cell in rows]
    versions = sorted({(code.get("commit") or "")[:12] or code.get("sources") or "not recorded" for code in codes})
    if len(versions) > 1:
        lines.append(f"- Several versions of the code computed these results ({', '.join(versions)}).")
    return ["\n".join(lines)] if lines else []


def _published(grid: Grid, cell: Cell) -> str:
    score, amount = grid.expected(cell)
    if score is None:
        return "-"
    return f"{score:.2f}" if amount in (None, cell.labelled) else f"{score:.2f} ({amount})"


def _pairs(grid: Grid, rows: Rows) -> str:
    known, unpaired = _has_ceilings(rows), 0
    table = [["difference", "labelled", "mean ± 95% interval", *(["resolvable"] if known else [])]]
    for amount in grid.amounts:
        for first, second in grid.plan.pairs:
            if not {first, second} <= {cell.arm for cell in grid.cells}:
                continue
            both = [
                (rows[one], rows[two])
                for repeat in grid.repeats
                if (one := Cell(first, amount, *repeat)) in rows and (two := Cell(second, amount, *repeat)) in rows
            ]
            paired = [pair for pair in both if _same_start(*pair)]
            unpaired += len(both) - len(paired)
            differences = [miou(one) - miou(two) for one, two in paired]
            cells = [f"{first} - {second}", amount or "all", interval(differences, grid.folds)]
            if known:
                scores = [_resolvable(pair) for pair in paired]
                cells.append(interval([pair[0] - pair[1] for pair in scores if pair], grid.folds))
            table.append(cells)
    pairs = "pair" if unpaired == 1 else "pairs"
    left_out = f"\n\nExcluded: {unpaired} {pairs} of runs with different initial weights." if unpaired else ""
    single = f"\n\n{ONE_RUN}" if len(grid.repeats) == 1 else ""
    return _markdown(table) + left_out + single


def _same_start(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    """Return whether two runs started from the same weights, as far as recorded, in the networks that both have."""
    return all(first == second for first, second in zip(one.get("starts", []), two.get("starts", []), strict=False))


def miou(row: Mapping[str, Any]) -> float:
    """Return the mean IoU of the last checkpoint in per cent."""
    return 100 * float(row["result"]["last"][SCORE])


def _has_ceilings(rows: Rows) -> bool:
    return any(f"{SCORE}_resolvable" in row["result"]["last"] for row in rows.values())


def _resolvable(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return `miou_resolvable` of the last checkpoints in per cent; empty if a row lacks it."""
    values = [row["result"]["last"].get(f"{SCORE}_resolvable") for row in rows]
    return [] if None in values else [100 * float(value) for value in values]


def _middle(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(statistics.median(known)) if known else "-"


def _markdown(table: Sequence[Sequence[str]]) -> str:
    head, *rows = table
    lines = [head, ["---"] * len(head), *([markdown(cell) for cell in cells] for cells in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
