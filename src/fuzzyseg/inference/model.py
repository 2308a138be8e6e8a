"""The model folder: weights in the format of segmentation_models_pytorch (smp), and the model card."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from fuzzyseg.data import DataError
from fuzzyseg.inference.hub import download, is_hub_name
from fuzzyseg.inference.model_card import CARD_NAME, ModelCard, model_folder, read_card
from fuzzyseg.inference.predictor import Predictor
from fuzzyseg.inference.readme import readme
from fuzzyseg.networks import Segmenter, architecture, check_names
from fuzzyseg.networks.weights import load_network, save_network
from fuzzyseg.run.files import naming, sync


def save_model(folder: Path, network: nn.Module, *, card: ModelCard) -> None:
    """Save a network and its card in `folder`, replacing the folder's content.

    A Segmenter is saved in the format of `segmentation_models_pytorch.from_pretrained(folder)` (config.json and
    model.safetensors), any other network as weights only. Raises OSError as `replacing_folder` does.
    """
    with replacing_folder(folder) as part:
        card.write(part)
        save_network(network, part)
        (part / "README.md").write_text(readme(card, network), encoding="utf-8")  # replaces smp's


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `folder` if the block ends without an error.

    Raises an OSError that names `folder` if the disk is full or read-only. After any error, the new folder is removed.
    """
    part, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with naming(folder):
            part.mkdir(parents=True)
            yield part
            for path in (*part.iterdir(), part):
                sync(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load(
    path: str | Path, *, network: Callable[[], nn.Module] | None = None, device: torch.device | str = "cpu"
) -> Predictor:
    """Load a trained model from a run folder (its last model), a `model/` or `best/` folder, or the hub.

    path: `user/name` refers to the Hugging Face hub if neither this path nor a folder `user` exists; names in a model
    folder are never looked up there. network: factory of a custom network, as in training. Raises DataError if there is
    no model, a file is damaged, or the factory is missing; ValueError if the weights do not fit.
    """
    path = download(str(path)) if is_hub_name(str(path)) else Path(path)
    folder, card = model_folder(path), read_card(path)
    if folder is None or card is None:
        problem = "no such file or folder" if not path.exists() else f"no {CARD_NAME} and no model/{CARD_NAME}"
        if (path / "last.pt").is_file():
            problem += "; its training is not finished (continue it with --resume"
            problem += f", or use {path / 'best'})" if (path / "best" / CARD_NAME).is_file() else ")"
        raise DataError(f"{path}: found {problem}; expected a run folder or its model/ or best/ folder")
    config = folder / "config.json"
    if network is not None:
        model = network()
    elif config.is_file():
        model = Segmenter(_from_config(config))
    else:
        raise DataError(f"{folder}: has the weights of a custom network; give its factory: load(path, network=factory)")
    load_network(model, folder)
    if isinstance(model, Segmenter) and model.classes != len(card.classes):
        found = f"its network has {model.classes} classes, its {CARD_NAME} {len(card.classes)}"
        raise DataError(f"{folder}: {found}; copy the model folder again")
    return Predictor(model.eval(), card, device)


def _from_config(path: Path) -> nn.Module:
    """Return the untrained model described by config.json. Raises DataError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        name = values.pop("_model_class")
        check_names(name, values["encoder_name"])
        fetched = [key for key in values if key.startswith(("pretrained", "checkpoint"))]
        if fetched:
            raise ValueError(f"found {fetched[0]!r}; a model folder must contain all its weights")
        return architecture(name)(**values | {"encoder_weights": None})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise DataError(f"{path}: does not describe a network ({error!r}); copy the model folder again") from None
