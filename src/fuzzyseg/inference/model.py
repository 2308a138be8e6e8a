"""The model folder: weights in the format of segmentation_models_pytorch, and the model card."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fuzzyseg.data import DataError
from fuzzyseg.data.text import markdown
from fuzzyseg.inference.model_card import CARD_NAME, ModelCard, model_folder, read_card
from fuzzyseg.inference.predictor import Predictor
from fuzzyseg.networks import Segmenter, architecture, check_names, load_network, save_network
from fuzzyseg.run.files import naming, sync

_README = """# {title}

A semantic segmentation model trained with {version}: method {method}, loss {loss}, {step} steps.
Classes, in index order: {classes}.

Input: {channels} channels in [0, 1], then mean {mean} and standard deviation {std}.

{how}
"""


def save_model(folder: Path, network: nn.Module, *, card: ModelCard) -> None:
    """Store network and card in folder, replacing its content.

    A Segmenter is stored as `segmentation_models_pytorch.from_pretrained(folder)` loads it (config.json and
    model.safetensors), another network as weights only. The files are written beside the folder first, which is
    replaced once they are complete. Raises an OSError for the folder if the disk takes no more; nothing is left then.
    """
    part, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "old"))
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with naming(folder):
            part.mkdir(parents=True)
            (part / "README.md").write_text(_readme(card, network), encoding="utf-8")
            card.write(part)
            save_network(network, part)
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


def _readme(card: ModelCard, network: nn.Module) -> str:
    own = not isinstance(network, Segmenter)
    elsewhere = 'Elsewhere: `segmentation_models_pytorch.from_pretrained("THIS_FOLDER")`.'
    if isinstance(network, Segmenter) and not network.loads_elsewhere:
        elsewhere = "segmentation_models_pytorch alone cannot load it: its DPT takes no patches of this size."
    return _README.format(
        title="Network of your own" if own else f"{card.arch} with encoder {card.encoder}",
        version=f"fuzzyseg {card.version}" if card.version else "fuzzyseg",
        method=card.method,
        loss=card.loss,
        step=card.step,
        classes=", ".join(map(markdown, card.classes)),
        channels=card.channels,
        mean=card.mean,
        std=card.std,
        how=(
            "The network is one of your own: use it from Python and give its factory, "
            '`fuzzyseg.load("THIS_FOLDER", network=factory).labels(image)`.'
            if own
            else "With fuzzyseg: `fuzzyseg predict THIS_FOLDER IMAGES --out DIR`, or "
            f'`fuzzyseg.load("THIS_FOLDER").labels(image)`. {elsewhere}'
        ),
    )


def load(
    path: str | Path, *, network: Callable[[], nn.Module] | None = None, device: torch.device | str = "cpu"
) -> Predictor:
    """Load the trained model of a run folder (its last one) or of a `model/` or `best/` folder.

    network: the factory that it was trained with, for a network of the user's own. Raises DataError if there is no
    model, a file is damaged, or the factory is missing; ValueError if weights do not fit.
    """
    path = Path(path)
    folder, card = model_folder(path), read_card(path)
    if folder is None or card is None:
        found = "no such file or folder" if not path.exists() else f"no {CARD_NAME} and no model/{CARD_NAME}"
        if (path / "last.pt").is_file():
            found += "; its training is not finished (continue it with --resume"
            found += f", or use {path / 'best'})" if (path / "best" / CARD_NAME).is_file() else ")"
        raise DataError(f"{path}: found {found}; expected a run folder or its model/ or best/ folder")
    config = folder / "config.json"
    if network is not None:
        model = network()
    elif config.is_file():
        model = Segmenter(_from_config(config))
    else:
        raise DataError(
            f"{folder}: holds the weights of a network of your own; give its factory: load(path, network=factory)"
        )
    load_network(model, folder)
    return Predictor(model.eval(), card, device)


def _from_config(path: Path) -> nn.Module:
    """The untrained model described by config.json."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        name = values.pop("_model_class")
        check_names(name, values["encoder_name"])
        fetched = [key for key in values if key.startswith(("pretrained", "checkpoint"))]
        if fetched:
            raise ValueError(f"found {fetched[0]!r}; a model folder holds all its weights")
        return architecture(name)(**values | {"encoder_weights": None})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: describes no network ({error!r}); copy the model folder again") from None
