"""What an installed package offers by entry points is found by the command line, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fuzzyseg

EXAMPLES = Path(__file__).parents[1] / "examples"

ENTRY_POINTS = """\
[fuzzyseg.methods]
self_training = offered.own_method:SelfTraining
cps = offered.own_method:SelfTraining
broken = offered.missing:Method

[fuzzyseg.losses]
focal = offered.own_loss:focal

[fuzzyseg.datasets]
discs = offered.own_dataset:discs
"""


def install(site: Path) -> Path:
    """A package `offered` with the examples as modules, as pip would leave it."""
    package = site / "offered"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("own_method", "own_loss", "own_dataset"):
        shutil.copy(EXAMPLES / f"{name}.py", package)
    info = site / "offered-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offered\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


def test_the_command_line_trains_with_an_installed_method_loss_and_data_set(tmp_path):
    source = Path(fuzzyseg.__file__).parents[1]
    path = os.pathsep.join([str(install(tmp_path / "site")), str(source)])
    words = (
        "train --data discs --method self_training --loss focal loss.options.gamma=1 --out run --encoder resnet18 "
        "--weights none --arch Unet --steps 1 --batch 2 --crop 64 --workers 0 --device cpu"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "fuzzyseg", *words.split()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "broken" in done.stderr  # reported, not fatal
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["method"], result["loss"]) == ("self_training", "focal")
    assert set(result["last"]["per_class"]) == {"ground", "disc"}


def test_a_method_of_fuzzysegs_own_is_not_replaced(tmp_path, monkeypatch):
    from fuzzyseg import plugins
    from fuzzyseg.methods.cps import CPS

    monkeypatch.syspath_prepend(str(install(tmp_path / "site")))
    plugins._installed.cache_clear()
    try:
        result = plugins.methods()
    finally:
        plugins._installed.cache_clear()
    assert result["cps"] is CPS
    assert result["self_training"].__module__ == "offered.own_method"
