"""Encoder and network weights: loading, saving, and downloads from the Hugging Face hub."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import constants, get_session
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from fuzzyseg.networks.segmenter import Segmenter

State = dict[str, Tensor]
Statistics = tuple[list[float], list[float]]
T = TypeVar("T")

_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "smp.", "encoder.", "backbone.", "features.")
_NESTED = ("state_dict", "model_state_dict", "model", "network", "ema")
_REACH_SECONDS = 5.0
CHECKSUM = ".sha256"
"""Suffix of a weights file's checksum file."""


def read_state(path: Path) -> State:
    """Read the tensors of a .safetensors or torch file (.pth, .pt, .bin; loaded with weights_only=True).

    Raises ValueError if the file is missing or damaged, or does not contain a state_dict.
    """
    if not path.is_file():
        raise ValueError(f"weights {path}: no such file; expected a .safetensors or .pth file")
    _check_start(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"weights {path}: cannot be read ({error}); expected safetensors or a torch file") from error
    except Exception as error:  # unpickling errors, whose message advises weights_only=False
        raise ValueError(
            f"weights {path}: contains objects other than tensors; expected safetensors or a torch file of a "
            "state_dict() (if it contains a whole module, load it in Python and save its state_dict())"
        ) from error
    for _ in _NESTED:  # checkpoints store the weights under one of these keys
        inner = next((content[key] for key in _NESTED if isinstance(content, Mapping) and key in content), None)
        if not isinstance(inner, Mapping):
            break
        content = inner
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not state:
        raise ValueError(f"weights {path}: contains no named tensors; expected a state_dict")
    return state


def _check_start(path: Path) -> None:
    """Raise ValueError for the result of a failed download: an empty file, a Git LFS pointer, HTML or XML."""
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if not start:
        raise ValueError(f"weights {path}: is empty; download or copy it again")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"weights {path}: is a Git LFS pointer, not the file itself: run `git lfs pull`")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"weights {path}: is an HTML or XML page, as from a failed download: download it again")


def _namings(state: State, keys: set[str]) -> Iterator[State]:
    """Yield the tensors under alternative names: without wrapper prefixes, or with one of timm's prefixes."""
    seen, queue = [set(state)], [state]
    while queue:
        form = queue.pop(0)
        yield form
        for wrapper in _WRAPPERS:
            inner = {k.removeprefix(wrapper): v for k, v in form.items() if k.startswith(wrapper)}
            if inner and set(inner) not in seen:
                seen.append(set(inner))
                queue.append(inner)
        flat = {re.sub(r"^([a-z]+)\.(\d+)\.", r"\1_\2.", k): v for k, v in form.items()}
        for prefix in ("model.", "features."):
            if any(k.startswith(prefix) for k in keys):
                yield {prefix + k: v for k, v in form.items()}
                yield {prefix + k: v for k, v in flat.items()}  # timm: stages.0 is stages_0 in a feature extractor


def _adapt_channels(module: nn.Module, state: State) -> State:
    """Adapt the first convolution's weights to a different number of input channels, preserving the response's scale.

    A single channel gets the sum (grey images have equal channels); otherwise channels are repeated cyclically and
    multiplied by old / new.
    """
    name, conv = next(((n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    key, result = f"{name}.weight", dict(state)
    if conv is None or key not in state or state[key].dim() != 4 or conv.groups != 1:
        return result
    weight, new = state[key], conv.in_channels
    old = weight.shape[1]
    if new == 1 != old:
        result[key] = weight.sum(1, keepdim=True)
    elif new != old:
        result[key] = weight[:, [i % old for i in range(new)]] * (old / new)
    return result


def _examples(keys: list[str]) -> str:
    return f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


def _fill(module: nn.Module, state: State, what: str) -> None:
    """Load state into module. Raises ValueError naming missing and unknown keys and mismatched shapes.

    Batch-norm counters and the second name of tied weights may be missing. Keys of submodules that the module does not
    have, such as a classifier, are ignored.
    """
    target = module.state_dict()
    depth = 2 if len({k.split(".")[0] for k in target}) == 1 else 1  # timm's encoders have a single child module
    parts = {tuple(k.split(".")[:depth]) for k in target}
    given = {(target[k].data_ptr(), target[k].shape) for k in target if k in state}  # tied weights are stored once
    lacking = [k for k in target if k not in state and not k.endswith("num_batches_tracked")]
    missing = [k for k in lacking if (target[k].data_ptr(), target[k].shape) not in given]
    unknown = [k for k in state if k not in target and tuple(k.split(".")[:depth]) in parts]
    different = [k for k in target if k in state and target[k].shape != state[k].shape]
    problems = [f"missing: {_examples(missing)}"] if missing else []
    problems += [f"unknown: {_examples(unknown)}"] if unknown else []
    shapes = ((k, tuple(state[k].shape), tuple(target[k].shape)) for k in different[:3])
    problems += [f"{key} has shape {shape} in the file and {here} in the network" for key, shape, here in shapes]
    if problems:
        more = f"; {len(different) - 3} more shapes differ" if len(different) > 3 else ""
        raise ValueError(f"{what} do not fit: {'; '.join(problems)}{more}")
    module.load_state_dict({k: v for k, v in state.items() if k in target}, strict=False)


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Load an encoder weights file whose keys may have any known prefix, adapting the input channels.

    Raises ValueError with counts and examples of the keys that do not match.
    """
    keys = set(encoder.state_dict())
    state = max(_namings(read_state(path), keys), key=lambda form: len(keys & form.keys()))
    try:
        _fill(encoder, _adapt_channels(encoder, state), f"encoder weights {path}")
    except ValueError as error:
        raise ValueError(f"{error}; expected weights of the encoder given by --encoder{_look_like(path)}") from None


def _look_like(path: Path) -> str:
    """Return a hint naming the encoder that matches a weights file best, if nearly all names and shapes match."""
    from segmentation_models_pytorch.encoders import encoders, get_encoder
    from timm import list_models  # both take seconds to import

    state, best = read_state(path), (0.95, "")
    stem = max((name for name in list_models() if path.stem.startswith(name)), key=len, default="")
    for name in [*encoders, *[f"tu-{stem}"] * bool(stem)]:
        try:
            with torch.device("meta"):  # allocates no memory and uses no random numbers
                target = get_encoder(name, weights=None).state_dict()
        except Exception:  # an encoder that cannot be built this way is not suggested
            continue
        shapes = {key: value.shape for key, value in target.items() if not key.endswith("num_batches_tracked")}
        for form in _namings(state, set(target)):
            fit = sum(key in form and form[key].shape == shape for key, shape in shapes.items())
            best = max(best, (fit / len(shapes), name))
    return f"; this file looks like --encoder {best[1]}" * bool(best[1])


def network_file(path: Path) -> Path:
    """Return the weights file at a path, which may be a model or run folder. Raises ValueError if there is none."""
    for file in (path, path / "model.safetensors", path / "model" / "model.safetensors"):
        if file.is_file():
            return file
    issue = "a folder without model.safetensors or model/model.safetensors" if path.is_dir() else "no such file"
    raise ValueError(f"network weights {path}: found {issue}; expected a weights file, a model folder or a run folder")


def load_network(network: nn.Module, path: Path) -> None:
    """Load all weights of a network from a file, a model folder or a run folder.

    Raises ValueError, naming the keys and shapes, if any do not match, or if the file's checksum is wrong.
    """
    file = network_file(path)
    _check_start(file)
    expected = file.with_name(file.name + CHECKSUM)
    if expected.is_file() and expected.read_text(encoding="utf-8").split()[:1] != [_sha256(file)]:
        raise ValueError(
            f"network weights {file}: are damaged (they do not match {expected.name}); copy the folder again, or "
            f"delete {expected.name} if you have changed the weights"
        )
    target = network.smp if isinstance(network, Segmenter) else network
    keys = set(target.state_dict())
    state = max(_namings(read_state(file), keys), key=lambda form: len(keys & form.keys()))
    _fill(target, state, f"network weights {file}")


def save_network(network: nn.Module, folder: Path) -> None:
    """Write model.safetensors, which `load_network` reads, and its checksum in the format of `sha256sum`.

    For a Segmenter, also write config.json, so that `segmentation_models_pytorch.from_pretrained(folder)` loads `smp`.
    """
    if isinstance(network, Segmenter):
        network.smp.save_pretrained(folder)
    else:
        save_model(network, str(folder / "model.safetensors"))
    file = folder / "model.safetensors"
    file.with_name(file.name + CHECKSUM).write_text(f"{_sha256(file)}  {file.name}\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Fall back to the local cache if one short request cannot reach the hub.

    The hub client would retry each request for most of a minute. Neither smp nor timm forwards its argument
    `local_files_only`, so the only way is to set its offline flag.
    """
    before = constants.HF_HUB_OFFLINE
    try:
        get_session().head(constants.ENDPOINT, timeout=_REACH_SECONDS)
    except Exception:  # depends on the hub's HTTP client
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def from_hub(encoder: str, fetch: Callable[[], T]) -> T:
    """Return the result of fetch, which may download ImageNet weights. Raises ValueError if they are unavailable."""
    try:
        with hub_or_cache():
            return fetch()
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError) as error:
        raise ValueError(
            f"the ImageNet weights of encoder {encoder!r} are not in the cache and {constants.ENDPOINT} cannot be "
            "reached; give a file (--weights FILE) or start from random weights (--weights none)"
        ) from error


def weights_statistics(weights: str, encoder: str, channels: int = 3) -> Statistics | None:
    """Return the per-channel mean and std, for images in [0, 1], with which the encoder's weights were trained.

    weights: imagenet, none or a file, as in `build_network`. Returns None if there are no weights, or no
    `mean` and `std` in the file's metadata. For other channel counts the values are repeated cyclically (averaged for a
    single channel), like the weights of the first convolution. Raises ValueError for invalid metadata.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        from segmentation_models_pytorch.encoders import get_preprocessing_params

        settings = from_hub(encoder, lambda: get_preprocessing_params(encoder))
        largest = float(settings["input_range"][1])
        mean, std = ([float(v) / largest for v in settings[key]] for key in ("mean", "std"))
    else:
        metadata = _metadata(Path(weights))
        if "mean" not in metadata or "std" not in metadata:
            return None
        try:
            mean, std = ([float(v) for v in metadata[key].split(",")] for key in ("mean", "std"))
        except ValueError as error:
            raise ValueError(f"weights {weights}: mean and std in the metadata must be numbers; {error}") from error
    if channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    return [mean[i % len(mean)] for i in range(channels)], [std[i % len(std)] for i in range(channels)]


def weights_licence(weights: str, encoder: str) -> str | None:
    """Return the licence declared for the encoder's weights (a file's `license` metadata, or timm's entry), or None."""
    if weights == "none":
        return "none, trained from random weights"
    if weights != "imagenet":
        return _metadata(Path(weights)).get("license")
    from timm import get_pretrained_cfg  # takes seconds to import

    return getattr(get_pretrained_cfg(encoder.removeprefix("tu-")), "license", None) if encoder[:3] == "tu-" else None


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    _check_start(path)
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"weights {path}: cannot be read ({error}); expected safetensors") from error
