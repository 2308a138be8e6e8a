"""The contact sheet of suggested images: one HTML file that needs no network."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fuzzyseg.report.page import MOST_BYTES, render
from fuzzyseg.run.files import write_text


def write_suggestions(
    out: Path, rows: Sequence[Mapping[str, Any]], pictures: Iterable[Mapping[str, bytes]], title: str, legend: Any
) -> None:
    """Write the page, with as many images as keep it below 10 MB.

    rows: rank, image, score and its parts of each image. pictures: of each, by view: `image`, a JPEG; and `prediction`,
    `k` and `uncertainty`, PNG files that lie on it. legend: names and colours of the classes.
    """
    shown, room = [], MOST_BYTES
    for row, views in zip(rows, pictures, strict=True):
        uris = {
            view: f"data:image/{'jpeg' if view == 'image' else 'png'};base64,{base64.b64encode(data).decode()}"
            for view, data in views.items()
        }
        room -= sum(map(len, uris.values()))
        if room < 0:
            break
        shown.append({**row, "views": uris})
    context = {"title": title, "rows": shown, "left_out": len(rows) - len(shown), "legend": legend}
    write_text(out, render(context, "suggestions.html"))
