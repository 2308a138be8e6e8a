"""Contact sheet of suggested images: a single self-contained HTML file."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fuzzyseg.report.page import MAX_BYTES, render
from fuzzyseg.run.files import write_text


def write_suggestions(
    out: Path, rows: Sequence[Mapping[str, Any]], pictures: Iterable[Mapping[str, bytes]], title: str, legend: Any
) -> None:
    """Write the page, with as many images as fit into 10 MB.

    rows: rank, image, score and score components per image. pictures: encoded views per image: `image`, a JPEG, and the
    PNG overlays `prediction`, `k` and `uncertainty`. legend: (name, colour) pairs of the classes.
    """
    shown, remaining = [], MAX_BYTES
    for row, views in zip(rows, pictures, strict=True):
        uris = {
            view: f"data:image/{'jpeg' if view == 'image' else 'png'};base64,{base64.b64encode(data).decode()}"
            for view, data in views.items()
        }
        remaining -= sum(map(len, uris.values()))
        if remaining < 0:
            break
        shown.append({**row, "views": uris})
    context = {"title": title, "rows": shown, "left_out": len(rows) - len(shown), "legend": legend}
    write_text(out, render(context, "suggestions.html"))
