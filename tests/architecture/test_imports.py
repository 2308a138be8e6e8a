"""Who may import whom: the table of the design, kept exactly."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "fuzzyseg"
EVERYTHING = "everything"
TORCH = ("torch",)


@dataclass(frozen=True)
class Row:
    """What a room may import: modules of ours (with all below them), others' packages; and of its own room?"""

    ours: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    itself: bool = True


FLOORS = ("engine", "inference", "analysis", "report", "run", "methods", "losses", "ops", "networks", "data", "config")
TABLE = {
    "ops": Row(packages=TORCH),
    "losses": Row(("ops",), ("torch", "triton")),
    "networks": Row(("ops",), ("torch", "segmentation_models_pytorch", "timm")),
    "data": Row(
        packages=(
            "torch",
            "torchvision",
            "PIL",
            "numpy",
            "pydantic",
            "yaml",
            "filelock",
            "pillow_heif",  # a plugin of Pillow for images of phones, used if installed
            "pycocotools",
            "rasterio",
            "scipy",
        )
    ),
    "run": Row(packages=("rich", "filelock")),
    "run.trackers": Row(("run",), ("rich", "torch", "trackio", "wandb")),
    "config": Row(packages=("pydantic", "yaml")),
    "methods": Row(("methods",)),
    "methods.base": Row(("data.views",), ("torch", "pydantic"), itself=False),
    "methods.<name>": Row(
        ("methods.base", "ops", "losses", "networks", "data.views"), ("torch", "pydantic", "scipy"), itself=False
    ),
    "analysis": Row(("losses",), TORCH),
    "inference": Row(
        # losses.fpl: fuzzy sets as the loss assigns them
        ("networks", "data", "ops", "run.files", "run.environment", "losses.fpl"),
        (
            *TORCH,
            "PIL",  # polygons
            "rasterio",  # GeoTIFF and polygons
            "numpy",  # masks of files
            "pydantic",  # the model card
            "huggingface_hub",  # `load("user/name")`, in one file
            "onnx",
            "onnxruntime",
            "openvino",
            "segmentation_models_pytorch",  # an export as smp's folder is loaded by smp alone
        ),
    ),
    "integrations": Row(("inference", "data"), (*TORCH, "numpy", "PIL", "cvat_sdk", "ray")),
    "engine": Row(("methods.base", "ops.distributed", "run"), TORCH),
    "report": Row(("run",), ("matplotlib", "jinja2", "scipy", "yaml")),  # run folders; Student's t
    "plugins": Row(("config", "losses", "methods"), TORCH),
    "experiment": Row((*FLOORS, "plugins", "integrations"), (EVERYTHING,)),
    "cli": Row((*FLOORS, "plugins", "experiment", "__version__"), (EVERYTHING,)),
    "": Row(itself=False),
    "__main__": Row(("cli",)),
}
"""Room -> what it may import besides the standard library. A room that does not exist yet is simply not met."""

LAZY = {"": Row((*FLOORS, "experiment"))}
"""What may be imported besides, but only when it is first used (in a function) or for the type checker."""

DEVIATIONS = {
    ("networks", "safetensors"): "weight files are safetensors; timm and smp bring it along",
    ("networks", "huggingface_hub"): "its errors, so that a failed download becomes a message to the user",
}
"""(room, what is imported) -> why, beyond the design's table. An entry that nothing needs any more is an error."""

COLLECTIVES = {
    "ops.distributed": "the one file with collectives",
    "engine.sharding": "shards weights by FSDP, and gathers them",
    "experiment.process_group": "opens and closes the process group that torchrun asked for; no collective",
}
"""The modules that may import torch.distributed."""


@dataclass(frozen=True)
class Import:
    """One import: its line, the full dotted target, and whether it happens when the module is loaded."""

    line: int
    target: str
    eager: bool


def room_of(module: str) -> str:
    """The row of the table for a module below fuzzyseg; `` is the package itself."""
    if module in TABLE:
        return module
    first = module.split(".")[0]
    return "methods.<name>" if first == "methods" else first


def imports_of(source: str, module: str, *, package: bool, modules: set[str]) -> Iterator[Import]:
    """Every import of a source text: relative, in functions, for the type checker, by string, as an attribute."""
    tree = ast.parse(source)
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    here = ["fuzzyseg", *(module.split(".") if module else [])]
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = here if package else here[:-1]
                base = ".".join([*above[: len(above) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                targets.append(base if base.startswith("fuzzyseg.") and full not in modules else full)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            targets = ["torch.distributed"]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            targets = [f"<{ast.unparse(node)}>"]
        for target in targets:
            yield Import(node.lineno, target, id(node) not in lazy)


def _within(target: str, allowed: tuple[str, ...]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in allowed)


def _permitted(room: str, module: str, item: Import) -> bool:
    row = TABLE[room]
    if item.target.startswith("<"):  # no import by string
        return False
    if _within(item.target, ("torch.distributed",)) and module not in COLLECTIVES:
        return False
    first = item.target.split(".")[0]
    if first != "fuzzyseg":
        return first in sys.stdlib_module_names or EVERYTHING in row.packages or first in row.packages
    ours = item.target.removeprefix("fuzzyseg").removeprefix(".")
    allowed = row.ours + ((room.split(".")[0],) if row.itself and room else ())
    if room == "methods.<name>":  # a method's own folder
        allowed += (".".join(module.split(".")[:2]),)
    if room in LAZY and not item.eager:
        allowed += LAZY[room].ours
    return bool(ours) and _within(ours, allowed)


def violations(
    source: str, module: str, *, package: bool = False, modules: set[str] | None = None, used: set | None = None
) -> list[str]:
    """What a source text, read as `module` below fuzzyseg, imports against the table. used: collects deviations."""
    room = room_of(module)
    if room not in TABLE:
        return [f"{module}: the room {room!r} is not in the table; add its row to design and test"]
    result = []
    for item in imports_of(source, module, package=package, modules=modules or set()):
        if _permitted(room, module, item):
            continue
        reason = next((key for key in DEVIATIONS if key[0] == room and _within(item.target, (key[1],))), None)
        if reason is None:
            result.append(f"fuzzyseg.{module}:{item.line} imports {item.target}")
        elif used is not None:
            used.add(reason)
    return result


def _modules() -> dict[str, Path]:
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def test_every_module_keeps_to_the_table():
    files = _modules()
    assert len(files) > 20
    names = {f"fuzzyseg.{name}" for name in files}
    used: set = set()
    result = []
    for module, path in files.items():
        text = path.read_text(encoding="utf-8")
        result += violations(text, module, package=path.name == "__init__.py", modules=names, used=used)
    assert not result, "\n".join(result)
    assert used == set(DEVIATIONS), f"no longer needed: {set(DEVIATIONS) - used}"


def test_only_named_modules_touch_torch_distributed():
    files = _modules()
    users = {
        module
        for module, path in files.items()
        for item in imports_of(path.read_text(encoding="utf-8"), module, package=False, modules=set())
        if _within(item.target, ("torch.distributed",))
    }
    assert users == set(COLLECTIVES)


MODULES = {
    "fuzzyseg.data.views",
    "fuzzyseg.config",
    "fuzzyseg.ops.mix",
    "fuzzyseg.methods.cps",
    "fuzzyseg.methods.base",
}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops.mix", "from fuzzyseg.losses import fuzzy_positive_loss"),
        ("experiment.training", "from fuzzyseg import __version__"),
        ("ops.mix", "import numpy"),
        ("losses.fuzzy", "from fuzzyseg import config"),
        ("losses.fuzzy", "from ..networks import segmenter"),
        ("losses.fuzzy", "from .. import config"),
        ("losses.fuzzy", "import fuzzyseg"),
        ("losses.fuzzy", "from fuzzyseg import Mixed"),
        ("networks.segmenter", "import torchvision"),
        ("data.reader", "def f():\n    from fuzzyseg.ops import mix"),
        ("data.reader", "if TYPE_CHECKING:\n    from fuzzyseg.engine import trainer"),
        ("run.logs", "import torch"),
        ("config", "import torch"),
        ("methods.base", "from fuzzyseg.data import reader"),
        ("methods.base", "from fuzzyseg.methods.cps import CPS"),
        ("methods.ael", "from fuzzyseg.methods.cps import CPS"),
        ("methods.ael", "from .cps import CPS"),
        ("methods.ael", "from . import cps"),
        ("methods.ael", "from fuzzyseg.engine import fit"),
        ("methods.ael", "import fuzzyseg.config"),
        ("methods.ael", "from fuzzyseg.data import layouts"),
        ("engine.trainer", "from fuzzyseg.methods.cps import CPS"),
        ("engine.trainer", "from fuzzyseg.methods import METHODS"),
        ("engine.trainer", "from fuzzyseg.losses import masked_mean"),
        ("engine.trainer", "from fuzzyseg.ops import mix"),
        ("engine.trainer", "from torch.distributed import all_reduce"),
        ("engine.trainer", "import torch\ntorch.distributed.barrier()"),
        ("engine.trainer", "from torch import distributed as dist"),
        ("inference.predict", "from fuzzyseg.losses import masked_mean"),
        ("inference.predict", "from fuzzyseg.config import Config"),
        ("analysis.coverage", "from fuzzyseg.data import read_dataset"),
        ("report.page", "import torch"),
        ("experiment.training", "from fuzzyseg.cli import app"),
        ("experiment.training", "import importlib\nimportlib.import_module('fuzzyseg.methods.cps')"),
        ("experiment.training", "import torch.distributed"),
        ("", "from fuzzyseg.experiment import train"),
        ("", "from fuzzyseg.losses import fuzzy_positive_loss"),
        ("", "def f():\n    from fuzzyseg.cli import app"),
        ("attic.old", "import os"),
    ],
)
def test_the_checker_sees_a_violation(module, source):
    modules = MODULES | {"fuzzyseg.networks.segmenter", "fuzzyseg.engine.trainer", "fuzzyseg.ops.distributed"}
    assert len(violations(source, module, modules=modules, package=module == "")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ops.mix", "import math\nfrom torch import Tensor\nfrom .ramp import linear_ramp"),
        ("losses.fuzzy", "from fuzzyseg.ops import mix"),
        ("methods.ael", "from fuzzyseg.data import views\nfrom .base import Method"),
        ("methods", "from fuzzyseg.methods.cps import CPS"),
        ("engine.trainer", "from fuzzyseg.methods.base import Method\nfrom fuzzyseg.ops.distributed import mean"),
        ("ops.distributed", "from torch import distributed"),
        ("run.trackers", "from torch.utils.tensorboard import SummaryWriter"),
        ("experiment.training", "import numpy\nfrom fuzzyseg.methods import METHODS"),
        ("", "def f():\n    from fuzzyseg.experiment import train"),
        ("__main__", "from fuzzyseg.cli import main"),
        ("cli", "from fuzzyseg import __version__"),
    ],
)
def test_the_checker_lets_pass_what_the_table_allows(module, source):
    assert violations(source, module, modules=MODULES, package=module in ("", "methods")) == []
