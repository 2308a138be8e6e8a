"""What importing the package brings in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_importing_the_package_imports_torch_and_nothing_heavier() -> None:
    code = """
import sys, torch
before = set(sys.modules)
import fuzzyseg
fuzzyseg.fuzzy_positive_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
new = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
heavy = {"segmentation_models_pytorch", "timm", "torchvision", "pydantic", "typer", "rich", "yaml", "PIL"}
print(sorted(new - {"fuzzyseg"}), sorted(heavy & set(sys.modules)))
print(sorted(name for name in sys.modules if name.startswith("fuzzyseg.") and name.count(".") == 1))
assert fuzzyseg.__all__ == sorted(fuzzyseg.__all__) and {"train", "load"} <= set(dir(fuzzyseg))
try:
    fuzzyseg.trian
except AttributeError as error:
    assert "train" in str(error)
"""
    source = str(Path(__file__).resolve().parents[2] / "src")
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["[] []", "['fuzzyseg.losses', 'fuzzyseg.ops']"]
