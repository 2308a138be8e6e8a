"""Commands and code of README and docs, run in a folder that has the names which the pages use.

Every command and code block is run here, unless `ELSEWHERE` or `NOT_RUN` lists it; a new one is therefore run. Options
that cut a command are appended: the last of two equal options counts.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import fuzzyseg
from fuzzyseg import Mixed, fuzzy_positive_loss, plugins
from fuzzyseg.cli import app
from fuzzyseg.data.datasets.synthetic import write_demo
from support.doc_pages import PAGES, ROOT, blocks, commands, commands_of

ELSEWHERE = {
    "fuzzyseg demo": "tests/experiment/test_demo.py",
    "torchrun --nproc-per-node=4 -m fuzzyseg predict": "tests/cli/test_torchrun.py",
    "cvat-cli task auto-annotate": "tests/integrations/test_cvat.py",
    "python tests/chaos/": "tests/chaos/test_chaos.py",
    "import openvino": "tests/inference/export/test_other_runtimes.py",
}
"""Beginnings of commands and code that another test runs in a similar form, since they take minutes or need a server or
several processes. The tests of `TUTORIAL` run that page."""
TUTORIAL = ROOT / "docs" / "tutorial-own-data.md"
NOT_RUN = {
    "pip install": "installs; continuous integration does",
    "python3 -m venv": "installs; continuous integration does",
    "make ": "the suite itself, and what continuous integration runs",
    "python benchmarks/": "minutes to hours",
    "python recipes/evidence/": "hours, with CamVid and weights",
    "fuzzyseg compare recipes/": "hours, with CamVid and weights; tests/test_recipes.py reads the recipes",
    "fuzzyseg sweep recipes/": "days, with CamVid, Cityscapes and weights; tests/test_recipes.py reads the recipes",
    "torchrun --nproc-per-node": "needs several GPUs; tests/experiment/test_distributed.py trains in two processes",
    "fuzzyseg predict runs/first photos/new --out results --ray": "needs Ray; tests/integrations/test_ray.py",
    "torchrun --nnodes": "needs several machines",
    "fuzzyseg train recipe.yaml --method unimatch_v2": "needs DINOv2 weights; tests/networks/test_dpt.py",
}
"""Beginnings of commands that cannot run here, and the reason."""
STEPS = "--steps 1 --crop 64 --batch 2 --workers 0 --device cpu --weights none"
SMALL = {
    "train": f"{STEPS} --arch FPN --encoder mobilenet_v2",
    "distill": STEPS,
    "compare": f"{STEPS} --arch FPN --encoder mobilenet_v2 --loss fuzzy",
    "export": "--images 1",
    "suggest": "-n 2",
    "analyse": "--limit 2 --images 1",
}
CUT = {"--seeds 3": "--seeds 1", "--folds 5": "--folds 2", "--labelled 100": "--labelled 4"}
ORDER = ["README.md", "which-settings.md", "comparing.md", "report.md"]
"""Pages whose runs others use; the others follow in alphabetical order."""


def listed(text: str) -> bool:
    return any(text.startswith(start) for start in (*ELSEWHERE, *NOT_RUN))


def pages() -> list[Path]:
    first = {name: place for place, name in enumerate(ORDER)}
    return sorted(PAGES, key=lambda page: first.get(page.name, len(ORDER)))


def code(page: Path) -> list[str]:
    return [block for language, block in blocks(page.read_text(encoding="utf-8")) if language == "python"]


def test_the_lists_of_what_is_not_run_here_are_up_to_date():
    texts = [text for page in PAGES for text in (*commands(page), *code(page))]
    for start in (*ELSEWHERE, *NOT_RUN):
        assert any(text.startswith(start) for text in texts), start
    for place in (*ELSEWHERE.values(), *re.findall(r"tests/\S+\.py", " ".join(NOT_RUN.values()))):
        assert (ROOT / place).is_file(), place
    assert sum(not listed(text) for text in texts) > 40


@pytest.fixture
def prepared(tmp_path, monkeypatch) -> Path:
    """The working folder: `photos` with 8 masks, images to predict, files of the examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_modules", {})
    write_demo("photos", train=12, val=3, size=(64, 80))
    for kind in ("images", "masks"):
        shutil.copytree(f"photos/{kind}/val", f"photos/{kind}/test")
        for path in Path(f"photos/{kind}/test").iterdir():
            path.rename(path.with_name(f"test_{path.name}"))
    for mask in sorted(Path("photos/masks/train").iterdir())[8:]:
        mask.unlink()
    write_demo("more", seed=1, train=3, val=1, size=(64, 80))
    shutil.copytree("more/images/train", "photos/new")
    next(Path("photos/new").iterdir()).rename("photos/new/photo.png")
    for name in ("own_method", "own_loss", "own_dataset"):
        shutil.copy(ROOT / "examples" / f"{name}.py", tmp_path)
    return tmp_path


def correct_in_cvat(labels: str) -> None:
    """What CVAT exports for a prediction in which nothing was corrected, with the images."""
    call("predict", "runs/first", "photos/new", "--out", "for_cvat", "--write", "cvat", "--overwrite")
    for folder in ("cvat_export", "corrected"):
        shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile("for_cvat/cvat.zip") as archive:
        archive.extractall("cvat_export")
    shutil.copytree("photos/new", "cvat_export/JPEGImages")
    if not Path(labels).is_file():
        shutil.copy("for_cvat/labels.txt", labels)


def predict_sets() -> None:
    call("predict", "runs/first", "photos/new/photo.png", "--out", "with_sets", "--write", "sets")
    shutil.copytree("with_sets/sets", "results/sets", dirs_exist_ok=True)


BEFORE: dict[str, Callable[[], object]] = {
    "fuzzyseg report runs/fuzzy runs/supervised": lambda: shutil.copytree("runs/first", "runs/fuzzy"),
    "fuzzyseg distill runs/teacher": lambda: shutil.copytree("runs/first", "runs/teacher"),
    "fuzzyseg convert cvat_export --labels results": lambda: correct_in_cvat("results/labels.txt"),
    "fuzzyseg convert cvat_export --labels next": lambda: correct_in_cvat("next/labels.txt"),
    "import numpy as np": predict_sets,
}
"""What a user has done before a command or code block."""
PLACEHOLDERS = {"RUN": "runs/first", "MODEL": "runs/first/model", "DIR": "photos"}


def call(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, (words, result.output)
    return result.output


def run_command(line: str) -> None:
    words = shlex.split(re.sub(r"\[(--[^\]]+)\]", r"\1", line))
    words = [PLACEHOLDERS.get(word, word) for word in words]
    text = shlex.join(words)
    for given, cut in CUT.items():
        text = text.replace(given, cut)
    program, verb, *rest = shlex.split(text)
    assert program == "fuzzyseg", line
    output = rest[rest.index("--out") + 1] if "--out" in rest else None
    call(verb, *rest, *shlex.split(SMALL.get(verb, "")))
    assert output is None or Path(output).exists(), line


class Frame(nn.Module):
    """In place of a LightningModule or an MMSegmentation model: what the code on the pages uses of it."""

    def __init__(self) -> None:
        super().__init__()
        self.student = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.logged: dict[str, Any] = {}

    def upsampled(self, images: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.student(images), size=images.shape[-2:], mode="bilinear")

    def log_dict(self, values: dict[str, Any]) -> None:
        self.logged.update(values)

    def extract_feat(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def decode_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.student(features)

    def loss(self, images: torch.Tensor, samples: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss_ce": F.cross_entropy(self.upsampled(images), samples)}


def run_code(block: str) -> None:
    """Run a block with the objects that the text around it describes; a loss that it computes has a gradient."""
    torch.manual_seed(0)
    student, teacher = Frame(), Frame()
    images = torch.rand(2, 3, 16, 16)
    logits = torch.randn(3, 2, 4, 8, 8)
    boxes = torch.rand(2, 16, 16) > 0.5
    framed = "decode_head" in block
    tensors = "Mixed(" in block
    names: dict[str, Any] = {
        "torch": torch,
        "F": F,
        "lightning": SimpleNamespace(LightningModule=Frame),
        "Mixed": Mixed,
        "fuzzy_positive_loss": fuzzy_positive_loss,
        "model": student,
        "student": logits[0].requires_grad_() if tensors else student.student,
        "teacher": logits[1] if tensors else teacher if framed else teacher.student,
        "teacher_a": logits[1],
        "teacher_b": logits[2],
        "boxes": boxes,
        "images": images,
        "weak": images,
        "strong": images + 0.1,
        "unlabelled": [(images, images + 0.1)],
        "labelled_images": images,
        "labelled_samples": torch.randint(0, 4, (2, 16, 16)),
        "valid": torch.rand(2, 16, 16) > 0.2,
        "optimiser": torch.optim.SGD(student.parameters(), lr=0.1),
    }
    exec(block, names)
    if "class Module" in block:
        module = names["Module"]()
        batch = {"labelled": (images, names["labelled_samples"]), "unlabelled": (images, images + 0.1)}
        names["loss"] = module.training_step(batch, 0)
        assert set(module.logged) == {"supervised", "unsupervised"}
    for value in (names.get("loss"), *names.get("losses", {}).values()):
        assert value is None or (torch.isfinite(value) and value.requires_grad)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="needs the extra onnx")
@pytest.mark.timeout(3600)
def test_commands_and_code_of_the_pages_run(prepared, monkeypatch):
    train = fuzzyseg.train

    def short(settings: dict[str, Any], **objects: Any) -> Any:
        small = {"steps": 1, "crop": [64, 64], "batch": 2, "workers": 0, "device": "cpu"}
        network = {} if objects else {"network": {"arch": "FPN", "encoder": "mobilenet_v2", "weights": "none"}}
        return train({**settings, **network, "train": {**settings["train"], **small}}, quiet=True, **objects)

    monkeypatch.setattr(fuzzyseg, "train", short)
    done, failed = set[str](), dict[str, str]()
    for page in pages():
        for language, block in [] if page == TUTORIAL else blocks(page.read_text(encoding="utf-8")):
            for text in [block] if language == "python" else commands_of(language, block):
                if listed(text) or text in done:
                    continue
                done.add(text)
                try:
                    for start, prepare in BEFORE.items():
                        if text.startswith(start):
                            prepare()
                    (run_code if language == "python" else run_command)(text)
                except Exception as error:
                    failed[f"{page.name}: {text}"] = repr(error)
    assert not failed, "\n\n".join(f"{text}\n  {error}" for text, error in failed.items())
    assert len(done) > 30
    assert all(any(text.startswith(start) for text in done) for start in BEFORE)
