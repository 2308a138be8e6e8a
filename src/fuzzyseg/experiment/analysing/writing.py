"""The result as tables: for the screen and for `analysis.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fuzzyseg.report.drawing import CASE_NAMES

Table = list[list[str]]

LOSSES = ("hard", "fuzzy")


def per_cent(value: float | None, digits: int = 1) -> str:
    """A share as per cent, a dash for None."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number, a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def thresholds(rows: Sequence[dict[str, Any]]) -> Table:
    """What the fuzzy sets hold, a row for each T."""
    head = ["T", "coverage", "top-1", "rescued", "mean K", "K=1", "K=2", "K=3", "K>3", "p1<=T<p1+p2"]
    table = [head]
    for row in rows:
        k = [*row["k_histogram"], 0.0, 0.0]
        table.append(
            [
                f"{row['threshold']:g}",
                *(per_cent(row[name]) for name in ("coverage", "top1", "rescued")),
                number(row["mean_k"], 2),
                *(per_cent(value) for value in (*k[:3], sum(k[3:]))),
                per_cent(row["torn"]),
            ]
        )
    return table


def confident(rows: Sequence[dict[str, Any]]) -> Table:
    """Whether confident pixels are right, a row for each confidence tau, and what a reliability gate makes of it."""
    table = [["confidence", "pixels", "right", "who teaches with confidence=gate"]]
    for row in rows:
        who = "confident pixels" if row["reliable"] else "all pixels"
        table.append([f"{row['confidence']:g}", per_cent(row["share"]), per_cent(row["right"], 2), who])
    return table


def cases(group: dict[str, Any]) -> Table:
    """Frequency, scores and gradients of the three cases, and of all pixels."""
    head = ["case", "pixels", "K=1", "R hard", "R fuzzy", "lift hard", "lift fuzzy", "x share, hard", "x share, fuzzy"]
    table = [head]
    for case, row in group["cases"].items():
        pairs = [
            (row[name][loss], 4 if name == "effect" else 3) for name in ("score", "lift", "effect") for loss in LOSSES
        ]
        cells = [number(value, digits) for value, digits in pairs]
        table.append([CASE_NAMES[int(case)], per_cent(row["share"], 2), per_cent(row["k_histogram"][0]), *cells])
    effect = [number(group["effect"][loss], 4) for loss in LOSSES]
    return [*table, ["all", per_cent(1.0, 0), per_cent(group["k_histogram"][0]), "", "", "", "", *effect]]


def sizes(group: dict[str, Any]) -> Table:
    """What comes with each K."""
    table = [["K", "pixels", "coverage", "top-1", "entropy / log C", "weight"]]
    for row in group["by_k"]:
        shares = [per_cent(row[name], 2) for name in ("share", "coverage", "top1")]
        table.append([str(row["k"]), *shares, number(row["entropy"]), number(row["weight"])])
    return table


def confusions(group: dict[str, Any], most: int = 12) -> Table:
    """The most frequent confusions, and how many of their pixels are rescued."""
    table = [["truth", "taken for", "pixels", "rescued"]]
    for row in group["confusions"][:most]:
        table.append([row["truth"], row["label"], per_cent(row["share"], 2), per_cent(row["rescued"])])
    return table


def aligned(table: Table) -> list[str]:
    """Lines for a terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = []
    for first, *rest in table:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def markdown(table: Table) -> list[str]:
    """The table in Markdown."""
    rows = ["| " + " | ".join(row) + " |" for row in table]
    return [rows[0], "|---" + "|---:" * (len(table[0]) - 1) + "|", *rows[1:]]


def about(result: dict[str, Any]) -> list[str]:
    """What was looked at, and what the reader has to know."""
    amounts = ", ".join(f"{group['images']} {name}" for name, group in result["groups"].items())
    lines = [
        f"source: {result['source']}; images: {amounts}, whole, at the training scale, networks in evaluation mode",
        f"teacher: {result['teacher']}; student: {result['student']}",
        f"sets: {result['threshold_text']}, rule {result['rule']}, weight {result['weight']}; "
        f"trained with loss {result['loss']}",
    ]
    return [*lines, *(f"note: {note}" for note in result["notes"])]


def page(result: dict[str, Any]) -> str:
    """analysis.md."""
    lines = ["# What FPL sees", "", *(f"- {line}" for line in about(result)), ""]
    lines += ["## Can FPL help, and with which T?", ""]
    for name, group in result["groups"].items():
        lines += [
            f"{name} images:",
            "",
            *markdown(thresholds(group["table"])),
            "",
            *markdown(confident(group["confident"])),
            "",
        ]
    lines += [*_paragraphs(result["answer"])]
    for name, group in result["groups"].items():
        lines += [f"## {name} images", ""]
        lines += [
            f"{group['pixels']} pixels whose truth is known: in the fuzzy set at {per_cent(group['coverage'], 2)}, "
            f"the most probable class at {per_cent(group['top1'], 2)}, mean K {number(group['mean_k'])}, expected "
            f"calibration error {per_cent(group['ece'], 2)}.",
            "",
            "The three cases. R: positive gradient score (Eq. 12). Lift: -w dL/dz of the true class, above 0 it rises.",
            "",
            *markdown(cases(group)),
            "",
            *markdown(sizes(group)),
            "",
        ]
        if group["confusions"]:
            lines += [*markdown(confusions(group)), ""]
    if result.get("figures"):
        lines += ["## Figures", ""]
        for file, caption in result["figures"].items():
            lines += [f"{caption}:", "", f"![{caption}]({file})", ""]
    return "\n".join(lines)


def _paragraphs(sentences: Iterable[str]) -> list[str]:
    return [line for sentence in sentences for line in (sentence, "")]


def screen(result: dict[str, Any]) -> list[str]:
    """What the command prints."""
    lines = about(result)
    for name, group in result["groups"].items():
        lines += ["", f"{name} images ({group['images']}):", *aligned(thresholds(group["table"])), ""]
        lines += aligned(confident(group["confident"]))
    return [*lines, "", *result["answer"]]
