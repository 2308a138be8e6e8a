import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from fuzzyseg.cli import app
from fuzzyseg.cli.progress import _lines, counter
from fuzzyseg.experiment.worker_pool import default_workers
from support.tiny_data import write_folder


def call(*words):
    return CliRunner().invoke(app, ["check", *map(str, words)])


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


def test_the_exit_code_tells_errors_from_warnings_from_refusals(folder, tmp_path):
    good = call(folder)
    assert good.exit_code == 0, good.output
    assert good.stdout.endswith("\nno problems found\n")
    (folder / "masks" / "val" / "im16.png").unlink()
    warned = call(folder)
    assert warned.exit_code == 0
    assert "warning: 1 validation image without a mask" in warned.stdout
    assert warned.stdout.endswith("\n1 warning\n")
    (folder / "masks" / "train" / "im01.png").write_text("text")
    bad = call(folder)
    assert bad.exit_code == 1
    assert "error: 1 file cannot be read" in bad.stdout
    assert bad.stdout.count("what to do: ") == 2
    assert bad.stdout.endswith("\n1 error, 1 warning\n")
    assert "Traceback" not in bad.output
    for words in ([tmp_path / "nowhere"], [folder, "data.lyout=voc"], [folder, "--val"], []):
        refused = call(*words)
        assert refused.exit_code == 2
        assert refused.stdout == ""
        assert refused.stderr


def test_json_is_one_object_with_every_file(folder):
    for number in range(12):
        (folder / "masks" / "train" / f"im{number:02d}.png").write_text("text")
    result = call(folder, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    finding = next(each for each in report["findings"] if each["kind"] == "unreadable")
    assert (finding["level"], finding["count"], len(finding["details"])) == ("error", 12, 12)
    assert finding["details"][0]["file"].endswith("im00.png")
    assert report["errors"] == sum(each["level"] == "error" for each in report["findings"])
    assert report["lists"]["val"] == {"images": 3, "masks": 3}
    text = call(folder).stdout
    assert text.count("is not an image") == 10
    assert "... and 2 more (--all lists them)" in text
    assert call(folder, "--all").stdout.count("is not an image") == 12


def test_the_table_of_classes(folder):
    report = json.loads(call(folder, "--json").stdout)
    assert sum(each["share"] for each in report["classes"]) == pytest.approx(1)
    text = call(folder).stdout
    for each in report["classes"]:
        row = rf"^ +{each['index']} +{each['name']} +{each['images']} +{100 * each['share']:.2f} %"
        assert re.search(row, text, re.MULTILINE), text


def test_a_warning_among_the_notes_is_no_problems_found_no_more(folder):
    for path in (folder / "images" / "train").glob("im0*.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 1024, (24, 32)).astype(np.uint16)).save(path)
    text = call(folder).stdout
    assert "warning: 8-bit images are mixed with 16-bit files" in text
    assert "no problems found" not in text
    assert text.endswith(" warnings\n") or text.endswith(" warning\n")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_names_send_no_codes_to_the_terminal(folder, more):
    os.rename(folder / "masks/train/im01.png", os.fsencode(folder / "masks/train") + b"/\x1b[2Jim01\x9b\xff.png")
    (folder / "dataset.yaml").write_text('classes: [low, "mid\\e[31mdle", high]\nignore_index: 255\n')
    result = call(folder, *more)
    assert result.exit_code == 1
    assert result.stdout.replace("\n", "").isprintable()
    assert r"\u001b[2Jim01" in result.stdout
    assert not more or json.loads(result.stdout)["classes"][1]["name"] == "mid\x1b[31mdle"


def test_the_options_are_those_of_training(folder, tmp_path):
    other = tmp_path / "more"
    other.mkdir()
    Image.new("RGB", (32, 24), (9, 9, 200)).save(other / "x.png")
    words = ["--unlabelled", other, "--val", "none", "--snap", "--seed", 3, "data.ignore_index=255"]
    report = json.loads(call(folder, *words, "--json").stdout)
    assert report["lists"] == {
        "labelled": {"images": 12, "masks": 12},
        "unlabelled": {"images": 5, "masks": 0},
    }


def test_progress_is_a_plain_line_now_and_then_where_there_is_no_terminal(capsys, monkeypatch):
    with counter("files") as silent:
        silent(1, 2)
    assert capsys.readouterr().err == ""
    now = iter([0.0, 10.0, 10.0])
    monkeypatch.setattr("fuzzyseg.cli.progress.time.monotonic", lambda: next(now))
    show = _lines("files", 0.0, Console(stderr=True))
    for done in (1, 2):
        show(done, 4)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["files 1/4  ETA 0:00:30", "files 2/4  ETA 0:00:10"]
    now = iter([0.0, 10.0])
    rare = _lines("files", 3600.0, Console(stderr=True))
    rare(1, 4)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sends a signal to a group of processes")
def test_ctrl_c_ends_all_processes_and_says_so_in_one_line(folder, tmp_path):
    for number in range(16, 216):
        Image.new("RGB", (1600, 1200), (number, 0, 0)).save(folder / "images" / "train" / f"im{number}.png")
    src = str(Path(__file__).parents[2] / "src")
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzzyseg", "check", str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([src, os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def readers():
        """Child processes that do not hear Ctrl-C; others come and go while packages are imported."""
        found = []
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            try:
                status = Path(f"/proc/{child}/status").read_text()
            except OSError:
                continue
            if int(re.search(r"SigIgn:\s*(\w+)", status)[1], 16) >> (signal.SIGINT - 1) & 1:
                found.append(child)
        return found

    until = time.monotonic() + 60
    while len(begun := readers()) < default_workers() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    assert len(begun) == default_workers()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert (out, err) == ("", "error: interrupted\n")
    assert not any(Path(f"/proc/{reader}").exists() for reader in begun)


def test_json_is_one_object_also_where_nothing_is_recognised(tmp_path):
    (tmp_path / "pictures").mkdir()
    result = call(tmp_path, "--json")
    assert result.exit_code == 2
    assert "no dataset is recognised" in json.loads(result.stdout)["error"]
