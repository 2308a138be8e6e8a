"""The page: made of a tiny run, of a sweep, and of hostile names; driven in a headless browser."""

import errno
import json
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from fuzzyseg.report.page import write_report
from fuzzyseg.run.folder import RunFolderError
from support.tiny_data import settings, write_folder
from support.tiny_network import TinyNetwork

HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>{{ 7*7 }}" + "W" * 240


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished training of a few steps with two evaluations."""
    from fuzzyseg.experiment import train

    root = tmp_path_factory.mktemp("report")
    config = settings(write_folder(root / "data"), root / "fuzzy")
    config["evaluate"] = {"gallery": 3}
    config["train"] |= {"steps": 4, "eval_every": 2, "log_every": 1}
    return train(config, network=partial(TinyNetwork, classes=3), quiet=True).run


def other(run: Path, folder: Path, name: str, **changes):
    """A copy of a run under another name with other settings and another last score."""
    made = shutil.copytree(run, folder / name, ignore=shutil.ignore_patterns("*.pt"))
    config = yaml.safe_load((made / "config.yaml").read_text())
    score = changes.pop("miou", None)
    for key, value in changes.items():
        section, _, field = key.partition("__")
        config[section] = {**config[section], field: value} if field else value
    (made / "config.yaml").write_text(yaml.safe_dump(config))
    if score is not None:
        result = json.loads((made / "result.json").read_text())
        result["last"]["miou"] = score
        (made / "result.json").write_text(json.dumps(result))
    return made


def row_of(run: Path, arm: str, seed: int, miou: float, **settings):
    config = yaml.safe_load((run / "config.yaml").read_text())
    flat = {"method.name": config["method"]["name"], "loss.name": "fuzzy", "data.val": None, **settings}
    result = json.loads((run / "result.json").read_text())
    result["last"]["miou"] = miou
    data = json.loads((run / "split.json").read_text())["data"]
    return {"sweep": "A sweep", "arm": arm, "seed": seed, "subset": seed, "data": data, "settings": flat,
            "starts": [], "result": result, "hardware": {}, "versions": {}, "code": {}}  # fmt: skip


@pytest.fixture(scope="module")
def sweep(run, tmp_path_factory):
    """The folder of a sweep: supervised, a variant that is better by an interval, and one that is not."""
    rows = tmp_path_factory.mktemp("sweep") / "rows"
    rows.mkdir()
    scores = {"supervised paper": (0.30, 0.31, 0.29), "fuzzy": (0.40, 0.412, 0.39), HOSTILE: (0.35, 0.20, 0.33)}
    for place, (arm, values) in enumerate(scores.items()):
        for seed, value in enumerate(values):
            method = "supervised" if place == 0 else "other"
            row = row_of(run, arm, seed, value, **{"method.name": method})
            (rows / f"{place}-{seed}.json").write_text(json.dumps(row))
    return rows.parent


def test_a_training_stores_what_the_page_shows(run):
    stored = json.loads((run / "evaluation" / "evaluation.json").read_text())
    last = json.loads((run / "result.json").read_text())["last"]
    matrix = stored["matrix"]
    assert sum(map(sum, matrix)) == last["pixels"]
    hits = sum(matrix[k][k] for k in range(3)) / last["pixels"]
    assert hits == pytest.approx(last["accuracy"])
    assert stored["result"]["calibration"] == last["calibration"]
    assert len(last["calibration"]["coverage_per_class"]) == 3
    assert stored["calibration"]["ece"] == pytest.approx(last["fuzzy"]["ece"])
    assert stored["calibration"]["coverage"] == pytest.approx(last["fuzzy"]["coverage"])
    shown = stored["gallery"]
    assert len(shown) == 3 and [entry["rank"] for entry in shown] == [1, 2, 3]
    assert [e["miou"] for e in shown] == sorted(e["miou"] for e in shown)
    assert all((run / "evaluation" / file).is_file() for entry in shown for file in entry["files"].values())


def test_pictures_show_truth_prediction_and_errors(run):
    import numpy as np
    from PIL import Image

    stored = json.loads((run / "evaluation" / "evaluation.json").read_text())
    entry = stored["gallery"][0]
    pictures = {view: Image.open(run / "evaluation" / file) for view, file in entry["files"].items()}
    layers = {view: np.asarray(picture) for view, picture in pictures.items()}
    truth = np.asarray(Image.open(run.parent / "data" / "masks" / "val" / f"{Path(entry['name']).name}.png"))
    assert (layers["truth"] == truth).all()
    wrong = (layers["prediction"] != truth) & (truth != 255)
    assert (layers["error"][truth != 255] == wrong[truth != 255]).all() and (layers["error"][truth == 255] == 255).all()
    shown = np.asarray(pictures["truth"].convert("RGBA"))
    assert (shown[truth == 255][:, 3] == 0).all() and (shown[truth == 1] == (213, 94, 0, 255)).all()
    assert layers["k"].max() <= 1 and layers["image"].shape[2] == 3  # K is 1 or 2 of three classes


def test_evaluate_stores_pictures_of_the_images_that_it_scores(run, tmp_path):
    from fuzzyseg.experiment import evaluate

    again = shutil.copytree(run, tmp_path / "again")
    before = json.loads((run / "evaluation" / "evaluation.json").read_text())
    network = partial(TinyNetwork, classes=3)
    evaluate(again, network=network, device="cpu")
    assert json.loads((again / "evaluation" / "evaluation.json").read_text()) == before  # not asked for
    result = evaluate(again, network=network, device="cpu", gallery=2)
    stored = json.loads((again / "evaluation" / "evaluation.json").read_text())
    assert stored["matrix"] == before["matrix"] and len(stored["gallery"]) == 2
    assert stored["calibration"]["k_histogram"] == pytest.approx(before["calibration"]["k_histogram"])
    assert stored["result"]["calibration"] == result["calibration"]
    assert stored["result"]["miou"] == result["miou"] and len(list((again / "evaluation").iterdir())) == 2 * 6 + 1
    evaluate(again, network=network, device="cpu", gallery=1, split="train")
    assert json.loads((again / "evaluation" / "evaluation.json").read_text())["split"] == "train"
    with pytest.raises(ValueError, match="model without a run"):
        evaluate(shutil.copytree(run / "model", tmp_path / "model"), network=network, gallery=1)


def test_a_full_disk_keeps_the_pictures_of_before(run, tmp_path, monkeypatch):
    from PIL import Image

    from fuzzyseg.experiment import evaluate

    again = shutil.copytree(run, tmp_path / "again")
    before = {path: path.read_bytes() for path in again.rglob("*") if path.is_file()}
    real, calls = Image.Image.save, []

    def full(image, *arguments, **options):
        calls.append(arguments)
        real(image, *arguments, **options)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=r"evaluation: cannot be written \(No space left .* unchanged") as error:
        evaluate(again, network=partial(TinyNetwork, classes=3), device="cpu", gallery=2)
    assert error.value.errno == errno.ENOSPC
    assert {path: path.read_bytes() for path in again.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("total", "wanted", "places"), [(10, 4, [0, 1, 4, 8]), (3, 12, [0, 1, 2]), (5, 0, []), (9, 1, [0])]
)
def test_half_of_the_gallery_are_the_worst_images(total, wanted, places):
    from fuzzyseg.experiment.gallery import _chosen

    assert _chosen(total, wanted) == places


def test_the_command_writes_the_page(run, tmp_path):
    from typer.testing import CliRunner

    from fuzzyseg.cli import app

    done = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "new" / "a.html"), "--title", "Mine"])
    assert done.exit_code == 0 and "<h1>Mine</h1>" in (tmp_path / "new" / "a.html").read_text()
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "b.html")])
    assert done.exit_code == 2 and "is neither a run folder" in done.output and not (tmp_path / "b.html").exists()


def test_the_page_needs_no_torch(run, tmp_path):
    import subprocess

    code = (
        "import sys; from pathlib import Path; from fuzzyseg.report.page import write_report;"
        f"write_report([Path({str(run)!r})], Path({str(tmp_path / 'a.html')!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_shows_how_often_the_sets_hold_each_class(run, tmp_path, open_page):
    stored = json.loads((run / "result.json").read_text())
    before = other(run, tmp_path, "before")  # its evaluation has no calibration: that of the training is shown
    values = {"a": 0.25, "b": 0.875, "c": None}
    stored["last"]["calibration"] |= {"coverage_per_class": values, "temperature": 1.75}
    (before / "result.json").write_text(json.dumps(stored))
    evaluation = json.loads((before / "evaluation" / "evaluation.json").read_text())
    del evaluation["result"]["calibration"], evaluation["calibration"]
    (before / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
    page = open_page(write_report([before, run], tmp_path / "a.html"))
    shown = page.locator("#calibration [data-panel='0']")
    assert shown.locator(".covered tbody tr").all_inner_texts() == ["a\t25.0\t", "b\t87.5\t", "c\t–\t"]
    assert "temperature 1.75" in shown.inner_text()
    shown.locator(".covered thead th").nth(1).click()
    assert shown.locator(".covered tbody th").all_inner_texts() == ["b", "a", "c"]
    page.click("#calibration [data-tab='1']")
    own = json.loads((run / "result.json").read_text())["last"]["calibration"]["coverage_per_class"]
    second = page.locator("#calibration [data-panel='1'] .covered td.n").all_inner_texts()
    assert second == [f"{100 * value:.1f}" for value in own.values()]


def test_every_control_of_a_page_of_runs_works(run, sweep, tmp_path, open_page):
    second = other(run, tmp_path, "second", loss__threshold=0.75)
    page = open_page(write_report([run, second, sweep], tmp_path / "a.html"))
    assert (
        page.locator(".number")
        .inner_text()
        .startswith(f"{100 * json.loads((run / 'result.json').read_text())['last']['miou']:.1f}")
    )
    # theme
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    # curves: values at the pointer and by keys; runs can be hidden
    plot = page.locator(".plot").first
    plot.hover()
    assert "step" in plot.locator(".tip").inner_text()
    assert plot.locator(".tick.x").all_inner_texts() == ["0", "1", "2", "3", "4"]
    plot.focus()
    for key, step in (("Left", 2), ("Left", 2), ("Right", 4), ("Right", 4), ("Left", 2)):  # the evaluations
        page.keyboard.press(f"Arrow{key}")
        assert f"step {step}" in plot.locator(".tip").inner_text()
    page.click("[data-toggle='1']")
    assert page.locator("#curves path[data-run='1']").first.evaluate("e => e.style.display") == "none"
    plot.hover()
    assert "second" not in plot.locator(".tip").inner_text()
    # classes: sorted by IoU, both ways
    head = page.locator(".classes thead th.n").first
    head.click()
    values = [
        float(v) for v in page.locator(".classes tbody tr td:nth-child(2)").evaluate_all("a => a.map(c => c.dataset.v)")
    ]
    assert values == sorted(values, reverse=True)
    head.click()
    again = [
        float(v) for v in page.locator(".classes tbody tr td:nth-child(2)").evaluate_all("a => a.map(c => c.dataset.v)")
    ]
    assert again == sorted(values)
    # confusion: a cell's numbers; shares by prediction; the second run's matrix
    page.locator(".matrix svg").first.hover()
    assert "of all" in page.locator(".readout").first.inner_text()
    cell = page.locator(".matrix rect").first
    shares = cell.get_attribute("data-t"), cell.get_attribute("data-p")
    page.click("[data-norm='p']")
    assert float(cell.get_attribute("fill-opacity")) == pytest.approx(float(shares[1]) ** 0.6, abs=1e-3)
    page.click("#confusion [data-tab='1']")
    assert page.locator("#confusion [data-panel='1']").is_visible()
    assert not page.locator("#confusion [data-panel='0']").is_visible()
    # gallery: views and the handle
    frame = page.locator("#gallery .frame").first
    page.click("[data-side='left'][data-choose='k']")
    assert frame.locator("img[data-view='k']").is_visible() and not frame.locator("img[data-view='truth']").is_visible()
    assert page.locator(".key[data-for='k']").is_visible()
    frame.locator(".wipe").fill("20")
    assert frame.evaluate("e => e.style.getPropertyValue('--x')") == "20%"
    page.locator("#strength").fill("30")
    assert frame.evaluate("e => e.style.getPropertyValue('--strength')") == "0.3"
    # comparison and settings
    page.locator(".reference").select_option("fuzzy")
    assert page.locator("tr[data-reference='fuzzy']").first.is_visible()
    assert not page.locator("tr[data-reference='supervised paper']").first.is_visible()
    page.locator("#settings summary").first.click()
    page.fill("#filter", "loss.threshold")
    assert page.locator("#all tbody tr:visible").count() == 1


def test_the_values_of_a_run_are_shown_only_near_its_steps(run, tmp_path, open_page):
    early = other(run, tmp_path, "early")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line["step"] *= 25
    (early / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    page = open_page(write_report([run, early], tmp_path / "a.html"))
    plot = page.locator(".plot").nth(1)  # a loss: at steps 1 to 4, and 25 to 100
    plot.focus()
    tip = plot.locator(".tip")
    found = []
    for _ in range(6):
        page.keyboard.press("ArrowRight")
        found.append(tip.inner_text().split("\n")[0].removeprefix("step "))
        assert tip.locator("div").count() == 1
    assert found == ["2", "4", "25", "50", "75", "100"]


def test_curves_of_many_long_runs_leave_room_for_pictures(tmp_path):
    from fuzzyseg.report.curves import charts
    from fuzzyseg.report.read import Run

    lines = [{"step": n, "losses": dict.fromkeys("abcd", n / 7)} for n in range(1, 3001)]
    runs = [Run(tmp_path, f"run {n}", {}, lines, {}, {}, {}, {}) for n in range(60)]
    assert len(json.dumps(charts(runs))) < 1_500_000


def test_pictures_get_the_room_that_confusion_matrices_leave(run, tmp_path, monkeypatch):
    from fuzzyseg.report import page

    again = other(run, tmp_path, "again")
    stored = json.loads((again / "evaluation" / "evaluation.json").read_text())
    names = [f"class {n}" for n in range(60)]
    stored |= {"matrix": [[9] * 60] * 60, "classes": names, "gallery": 20 * stored["gallery"][:1]}
    (again / "evaluation" / "evaluation.json").write_text(json.dumps(stored))
    (again / "evaluation" / stored["gallery"][0]["files"]["image"]).write_bytes(bytes(30_000))
    monkeypatch.setattr(page, "MAX_BYTES", 600_000)
    text = write_report([again], tmp_path / "a.html").read_text()
    assert len(text) < 10 / 8 * 600_000 and 2 < text.count("data:image/jpeg") < 6


def test_the_sizes_of_fuzzy_sets_are_drawn_for_runs_that_have_them(tmp_path):
    from fuzzyseg.report.curves import charts
    from fuzzyseg.report.read import Run

    def run_of(name, metrics):
        return Run(tmp_path, name, {}, [{"step": n, "metrics": metrics} for n in (1, 2)], {}, {}, {}, {})

    runs = [run_of("hard", {"confidence": 0.9})] * 3 + [run_of("fuzzy", {"k_histogram": [0.75, 0.25]})]
    (drawn,) = (chart for chart in charts(runs) if chart["stack"])
    assert "fuzzy" in drawn["title"] and [s["y"] for s in drawn["data"]["series"]] == [[0.75, 0.75], [0.25, 0.25]]


def test_a_tap_on_the_confusion_matrix_reads_it(run, tmp_path, open_page):
    page = open_page(write_report([run], tmp_path / "a.html"), 400, has_touch=True)
    page.locator(".matrix svg").tap()
    assert "of all" in page.locator(".readout").first.inner_text()


def test_the_reliability_diagram_is_read_by_keys_and_by_touch(run, tmp_path, open_page):
    page = open_page(write_report([run], tmp_path / "a.html"), 400, has_touch=True)
    bins = page.locator(".bin")
    texts = bins.evaluate_all("bins => bins.map((bin) => bin.dataset.text)")
    stored = json.loads((run / "evaluation" / "evaluation.json").read_text())["calibration"]["reliability"]
    filled = [row for row in stored if row["accuracy"] is not None]
    assert (
        len(filled) > 1 and len(texts) == len(filled) and f"accuracy {100 * filled[-1]['accuracy']:.1f}%" in texts[-1]
    )
    readout = page.locator("#calibration .readout")
    bins.last.tap()
    assert readout.inner_text() == texts[-1]
    page.locator(".reliability").focus()
    page.keyboard.press("ArrowLeft")
    assert readout.inner_text() == texts[-2]
    for _ in range(2):  # the last one is the end
        page.keyboard.press("ArrowRight")
    assert readout.inner_text() == texts[-1] and page.locator(".bin.on").count() == 1


def test_pictures_of_another_split_are_called_so(run, tmp_path):
    again = other(run, tmp_path, "again")
    stored = json.loads((again / "evaluation" / "evaluation.json").read_text())
    stored |= {"split": "test", "step": 4, "result": stored["result"] | {"images": 7}}
    (again / "evaluation" / "evaluation.json").write_text(json.dumps(stored))
    text = write_report([again], tmp_path / "a.html").read_text()
    assert "rank 1 of 7<" in text and text.count("7 test images, step 4") == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_is_wider_than_the_screen(run, sweep, tmp_path, open_page, width, scheme):
    path = write_report([run, other(run, tmp_path, "second", loss__name="hard"), sweep], tmp_path / "a.html")
    page = open_page(path, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_names_are_text(run, sweep, tmp_path, open_page):
    short = HOSTILE.replace("/", "\u2215")[:200]
    hostile = other(run, tmp_path, short, network__encoder=HOSTILE, data__root=f"/tmp/{HOSTILE}")
    for file in (hostile / "result.json", hostile / "evaluation" / "evaluation.json"):
        file.write_text(file.read_text().replace('"low"', json.dumps(HOSTILE)))
    text = (hostile / "metrics.jsonl").read_text().replace('"low"', json.dumps(HOSTILE))
    (hostile / "metrics.jsonl").write_text(text.replace('"unsupervised', json.dumps(HOSTILE)[:-1]))
    stored = json.loads((hostile / "evaluation" / "evaluation.json").read_text())
    stored["gallery"][0]["name"] = HOSTILE
    stored["gallery"][1]["files"]["truth"] = "../result.json"  # no file but pictures of its own folder
    stored["colours"][1] = "red;background:url(http://example.org)"
    (hostile / "evaluation" / "evaluation.json").write_text(json.dumps(stored))
    path = write_report([hostile, run, sweep], tmp_path / "a.html", title=HOSTILE)
    page = open_page(path, 400)
    assert page.locator("script:not([type])").count() == 1 and page.locator("img[onerror]").count() == 0
    assert page.locator("h1").inner_text() == HOSTILE
    assert HOSTILE in page.locator(".classes").inner_text()
    assert "example.org" not in path.read_text() and "49" not in page.locator("h1").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.locator(".plot").nth(1).hover()
    assert path.stat().st_size < 10_000_000


def test_no_gain_without_an_interval_above_0(run, sweep, tmp_path):
    from fuzzyseg.report.page import _gain
    from fuzzyseg.report.read import Run, rows_of, score_of

    scores = [score_of(row) for row in rows_of(sweep)]
    split = json.loads((run / "split.json").read_text())

    def gain(arm, chosen=scores):
        made = Run(run, "a", {"method.name": "other"}, [{"step": 1}], split, {}, {}, {}, arm)
        return _gain(made, chosen)

    better = gain("fuzzy")
    assert (
        better["kind"] == "gain"
        and better["interval"].n == 3
        and better["interval"].mean == pytest.approx(10.07, abs=0.01)
    )
    assert gain(HOSTILE)["kind"] == "open"  # +3.3 points on average, but the interval holds 0
    assert gain("fuzzy", [s for s in scores if s.repeat[0] == 0])["kind"] == "single"
    assert gain("fuzzy", [s for s in scores if not s.supervised])["kind"] == "missing"
    assert gain("fuzzy", [s for s in scores if s.arm != "fuzzy"])["kind"] == "unscored"  # not finished


def variants(page: Path) -> list[tuple[str, str]]:
    """Names and numbers of runs in the comparison table of a page."""
    row = r'<tr><th scope="row">([^<]*)</th><td class="n" data-v="\d+">\d+</td><td class="n" data-v="(\d+)">'
    return re.findall(row, page.read_text())


def test_runs_with_different_settings_are_different_variants(run, tmp_path):
    flipped = {"data__flip": False, "data__jitter": 0.1, "loss__balance": 0.5, "optim__lr": 0.2}
    runs = [  # equal scores; only the fifth differing setting tells the first two apart
        other(run, tmp_path, "a", train__steps=100),
        other(run, tmp_path, "b", train__steps=200, train__workers=7),
        other(run, tmp_path, "c", train__steps=100, **flipped),
        other(run, tmp_path, "d", train__steps=100, seed=5, miou=0.75, train__workers=1),
    ]
    found = variants(write_report(runs, tmp_path / "a.html"))
    assert [number for _, number in found] == ["2", "1", "1"] and len({name for name, _ in found}) == 3


def test_equal_names_of_two_sweeps_are_merged_only_for_equal_settings(run, tmp_path):
    for sweep, steps in (("first", 10), ("second", 20), ("third", 20)):
        (tmp_path / sweep / "rows").mkdir(parents=True)
        for seed, labelled in ((0, 2), (1, 4)):
            settings = {"train.steps": steps, "data.labelled": labelled}
            row = row_of(run, "fuzzy", seed, 0.5 + 0.01 * len(sweep), **settings)
            (tmp_path / sweep / "rows" / f"{seed}.json").write_text(json.dumps(row))
    found = variants(write_report([tmp_path / name for name in ("first", "second", "third")], tmp_path / "a.html"))
    assert found == [("fuzzy, steps 10", "2"), ("fuzzy, steps 20", "4")]


def test_a_repeat_that_occurs_twice_is_not_paired(run, sweep):
    from dataclasses import replace

    from fuzzyseg.report.compare import difference
    from fuzzyseg.report.read import rows_of, score_of

    scores = [score_of(row) for row in rows_of(sweep)]
    arms, labelled = ("fuzzy", "supervised paper"), scores[0].labelled
    twice = next(score for score in scores if score.arm == "fuzzy" and score.repeat[0] == 1)
    found, seeds, excluded = difference([*scores, replace(twice, miou=90.0)], *arms, labelled)
    assert found.n == 2 and excluded == 2 and not any("seed 1" in text for text in seeds)
    other_weights = [replace(score, starts=("b",), miou=score.miou + 1) for score in scores]
    both = [replace(score, starts=("a",)) for score in scores] + other_weights
    assert difference(both, *arms, labelled)[0].n == 6  # pairs of equal weights


def test_an_extended_run_shows_its_newest_evaluation(run, sweep, tmp_path):
    from fuzzyseg.report.read import read_run

    extended = other(run, tmp_path, "extended", train__steps=600, miou=0.25)
    assert read_run(extended, {extended: "a"}).last["miou"] == 0.25
    with (extended / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 450, "evaluation": {"miou": 0.875}}) + "\n")
    found = read_run(extended, {extended: "a"})
    assert found.last["miou"] == found.best["miou"] == 0.875 and found.steps == (450, 600)
    text = write_report([extended, sweep], tmp_path / "a.html").read_text()
    assert "87.5<small>" in text and "25.0<small>" not in text


def test_what_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(RunFolderError, match="is neither a run folder"):
        write_report([tmp_path], tmp_path / "a.html")
