"""The report of real runs: a comparison of two short trainings on a part of CamVid, in a headless browser."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.report.page import write_report

COMPARE = (
    "compare --methods fixmatch --loss fuzzy --seeds 1 --labelled 6 --steps 4 --crop 64 --batch 2 --workers 0 "
    "--device cpu --arch FPN --encoder mobilenet_v2 --weights none data.image_size=[96,128] evaluate.gallery=4 "
    "train.log_every=1 train.eval_every=2"
)

CELLS = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"


@pytest.mark.slow
def test_the_report_of_camvid_runs_and_their_comparison(shared, tmp_path, open_page):
    camvid = shared / "data" / "camvid"
    if not camvid.is_dir():
        pytest.skip("needs CamVid among the shared data")
    for split, every in (("train", 20), ("val", 17)):
        for image in sorted((camvid / split).glob("*.jpg"))[::every]:
            for folder, name in ((split, image.name), (f"{split}annot", f"{image.stem}.png")):
                (tmp_path / "camvid" / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy(camvid / folder / name, tmp_path / "camvid" / folder)
    compared = tmp_path / "compared"
    words = [*COMPARE.split(), "--data", str(tmp_path / "camvid"), "--out", str(compared)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    fuzzy, supervised = (next(compared.glob(f"{name}*/result.json")).parent for name in ("fixmatch", "supervised"))
    last, base = (json.loads((run / "result.json").read_text())["last"] for run in (fuzzy, supervised))

    page = open_page(write_report([fuzzy], tmp_path / "run.html"), 1400, color_scheme="dark")
    assert page.locator(".number").inner_text() == f"{100 * last['miou']:.1f}%"
    assert page.locator(".facts dd").all_inner_texts()[:3] == ["6", "13", "6"]
    table = [row[:2] for row in page.locator(".classes tbody tr").evaluate_all(CELLS)]
    assert table == [[name, f"{100 * iou:.1f}"] for name, iou in last["per_class"].items()] and len(table) == 11
    covered = page.locator(".covered td.n").all_inner_texts()
    assert covered == [f"{100 * value:.1f}" for value in last["calibration"]["coverage_per_class"].values()]
    shown = [float(text.split("%")[0]) for text in page.locator(".shot figcaption").all_inner_texts()]
    assert shown == sorted(shown) and len(shown) == 4
    sizes = page.locator(".frame img").evaluate_all("all => all.map(i => `${i.naturalWidth}x${i.naturalHeight}`)")
    assert sizes == ["480x360"] * 4 * 6  # decoded, all views of all images
    for view in ("k", "score", "error"):
        page.click(f"[data-side='left'][data-choose='{view}']")
        assert page.locator(f".frame img[data-view='{view}']:visible").count() == 4

    page = open_page(write_report([fuzzy, supervised, compared], tmp_path / "both.html"), 400, color_scheme="light")
    gain = 100 * (last["miou"] - base["miou"])
    assert page.locator(".lead .gain").inner_text() == f"{gain:+.2f} points"
    assert "no gain is claimed" in page.locator(".lead").inner_text()  # of one pair
    assert page.locator("#curves path.line[data-run='1']").count() >= 2  # overlaid: mIoU and the supervised loss
    assert page.evaluate("document.documentElement.scrollWidth") == 400

    page = open_page(write_report([compared], tmp_path / "compared.html"))
    means = page.locator(".compared table").first.locator("td[data-v]:nth-child(4)").all_inner_texts()
    assert sorted(means) == sorted(f"{100 * score['miou']:.2f}" for score in (last, base))
    assert page.locator(".differences tr:visible .badge").all_inner_texts() == ["one pair"]
    rows = page.locator("#settings table").first.locator("tr").evaluate_all(CELLS)
    assert any(row[0] == "method.name" and sorted(row[1:]) == ["fixmatch", "supervised"] for row in rows)
