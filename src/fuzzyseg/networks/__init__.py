"""Network construction with segmentation_models_pytorch."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # private: torch has no public base class for batch norms

from fuzzyseg.networks.segmenter import Segmenter
from fuzzyseg.networks.weights import from_hub, load_encoder, load_network, network_file

NETWORKS = (
    "DPT", "DeepLabV3", "DeepLabV3Plus", "FPN", "Linknet", "MAnet",
    "PAN", "PSPNet", "Segformer", "UPerNet", "Unet", "UnetPlusPlus",
)  # fmt: skip
"""Supported architectures, named after their classes in segmentation_models_pytorch."""

_RESERVED = {
    "encoder_name": ": set network.encoder instead",
    "encoder_weights": ": set network.weights instead",
    "encoder_output_stride": ": set network.output_stride instead",
    "in_channels": ": set network.channels instead",
    "classes": " cannot be set: the data determines the number of classes",
    "activation": " cannot be set: the losses need logits",
    "aux_params": " cannot be set: there are no image-level labels",
    "upsampling": " cannot be set: the architecture determines it",
}
"""Constructor arguments of smp that are not options, with the rest of the error message for each."""
_OURS = {"arch", "encoder", "weights", "channels", "output_stride", "checkpointing"}
"""Network settings common to all architectures."""


def architecture(name: str) -> type[nn.Module]:
    """Return the class of an architecture in `NETWORKS`. Raises KeyError for any other name."""
    import segmentation_models_pytorch as smp  # imported here: it takes seconds, and methods import this package

    if name not in NETWORKS:
        raise KeyError(name)
    return getattr(smp, name)  # type: ignore[no-any-return]


def build_network(
    arch: str,
    encoder: str,
    *,
    weights: str,
    channels: int,
    classes: int,
    output_stride: int | None = None,
    checkpointing: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Segmenter:
    """Build a network with new random decoder and head weights.

    arch: a name in `NETWORKS`. encoder: an encoder of segmentation_models_pytorch, or `tu-` plus a timm model name.
    weights: encoder weights; imagenet (downloaded), none or a file. channels: image channels. output_stride: the
    encoder's output stride, if configurable. checkpointing: recompute the encoder's activations in the backward pass.
    options: passed to the architecture and, for `tu-` encoders, to timm. Raises ValueError for an unknown name
    (suggesting the nearest known one), an option that does not apply, or weights that are unavailable or do not match.
    """
    check_names(arch, encoder)
    settings = _settings(arch, encoder, dict(options or {}), output_stride)
    if weights == "imagenet":
        # segmentation_models_pytorch expects the name of its weights, timm expects True
        name = encoder.startswith("tu-") or weights
        model = from_hub(encoder, lambda: _build(arch, encoder, name, settings, channels, classes))
    else:
        model = _build(arch, encoder, None, settings, channels, classes)
        if weights != "none":
            load_encoder(model.encoder, Path(weights))
    if checkpointing:
        _checkpoint_activations(model.encoder, encoder)
    model.config["encoder_weights"] = None  # a saved model contains its weights and must load offline
    return Segmenter(model)


def _checkpoint_activations(encoder: nn.Module, name: str) -> None:
    """Enable activation checkpointing in the encoder.

    Raises ValueError if the encoder does not support it or has batch norm, whose statistics would count each image
    twice.
    """
    model: Any = getattr(encoder, "model", None)
    if not hasattr(model, "set_grad_checkpointing") or any(isinstance(m, _BatchNorm) for m in encoder.modules()):
        expected = "expected an encoder of timm without batch norm, such as a tu-vit or a tu-convnext"
        raise ValueError(f"network.checkpointing: found the encoder {name}; {expected}")
    model.set_grad_checkpointing(True)


def _nearest(name: str, known: Iterable[str]) -> str:
    names = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return f" Did you mean {names[close[0]]!r}?" if close else f" Available: {', '.join(sorted(names.values()))}."


def check_names(arch: str, encoder: str) -> None:
    """Raise ValueError for an unknown architecture or encoder. Works offline, using smp's and timm's registries."""
    if arch not in NETWORKS:
        raise ValueError(f"network.arch: found {arch!r}, which is not an architecture.{_nearest(arch, NETWORKS)}")
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    if encoder.startswith("tu-"):
        name = encoder[3:].split(".")[0]
        if ":" in name or not timm.is_model(name):
            known = [f"tu-{model}" for model in timm.list_models()]
            close = difflib.get_close_matches(encoder, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else " timm.list_models() lists the names."
            raise ValueError(f"network.encoder: found {encoder!r}; timm has no model {name!r}.{hint}")
    elif encoder not in get_encoder_names():
        hint = _nearest(encoder, get_encoder_names())
        raise ValueError(f"network.encoder: found {encoder!r}, which is not an encoder.{hint} tu-NAME is timm's NAME.")


def _option_names(arch: str) -> set[str]:
    return set(inspect.signature(architecture(arch)).parameters) - {"kwargs", *_RESERVED}


def dropout_options(arch: str) -> list[str]:
    """Return the options of the architecture that set dropout in its decoder."""
    return sorted(name for name in _option_names(arch) if name.endswith("dropout"))


def _settings(arch: str, encoder: str, options: dict[str, Any], output_stride: int | None) -> dict[str, Any]:
    """Return the architecture's keyword arguments. Raises ValueError for unknown options."""
    known = _option_names(arch)
    for name in options:
        if name in _RESERVED:
            raise ValueError(f"network.{name}{_RESERVED[name]}")
        # timm checks its own options, but ignores those that are None
        if name not in known and (not encoder.startswith("tu-") or options[name] is None):
            raise ValueError(f"unknown setting 'network.{name}' of {arch}.{_nearest(name, known | _OURS)}")
    settings = dict(options)
    if output_stride is not None:
        able = [n for n in NETWORKS if "encoder_output_stride" in inspect.signature(architecture(n)).parameters]
        if arch not in able:
            expected = f"that of {arch} is fixed, unlike those of {', '.join(able)}"
            raise ValueError(f"network.output_stride: found {output_stride}; {expected}")
        settings["encoder_output_stride"] = output_stride
    # In these two, the logits' stride depends on the depth, but the default upsampling factor does not
    if arch == "PSPNet" and "encoder_depth" in options:
        settings["upsampling"] = 2 ** options["encoder_depth"]
    if arch == "FPN" and "encoder_depth" in options:
        settings["upsampling"] = 2 ** max(options["encoder_depth"] - 3, 0)
    return settings


def _build(
    arch: str, encoder: str, weights: str | bool | None, settings: dict[str, Any], channels: int, classes: int
) -> Any:
    """Build the model. Constructor errors are re-raised as ValueError naming the setting."""

    def construct(extra: Mapping[str, Any]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            options = {"encoder_name": encoder, "encoder_weights": weights, "in_channels": channels, "classes": classes}
            return architecture(arch)(**options, **settings, **extra)

    try:
        if arch == "DPT" and "dynamic_img_size" not in settings:
            try:  # by default vision transformers accept a single image size; not all have this option
                return construct({"dynamic_img_size": True})
            except TypeError as error:
                if "dynamic_img_size" not in str(error):
                    raise
        return construct({})
    except TypeError as error:
        unknown = str(error).rpartition("unexpected keyword argument ")[2].strip("'")
        if unknown == "output_stride":
            raise ValueError(f"network.encoder: {encoder} has a fixed output stride, {arch} needs another") from error
        if unknown in settings:
            hint = _nearest(unknown, _option_names(arch))
            raise ValueError(f"unknown setting 'network.{unknown}' of {arch} and of {encoder}.{hint}") from error
        raise ValueError(f"{arch} with encoder {encoder} cannot be built: {error}") from error
    except (ValueError, KeyError, RuntimeError, NotImplementedError, AssertionError) as error:
        raise ValueError(f"{arch} with encoder {encoder} cannot be built: {error}") from error


class NetworkFactory:
    """Network factory whose n-th call loads the n-th entry of `init`, if there is one, into a new network.

    make: returns a network with new random weights. init: weights files, model folders or run folders (`load_network`).
    Raises ValueError if one of these has no weights file.
    """

    def __init__(self, make: Callable[[], nn.Module], init: Sequence[str | Path] = ()) -> None:
        self.make, self.files = make, [network_file(Path(path)) for path in init]

    def __call__(self) -> nn.Module:
        """Return the next network. Raises ValueError as `load_network` does."""
        network = self.make()
        if self.files:
            load_network(network, self.files.pop(0))
        return network


__all__ = ["NETWORKS", "NetworkFactory", "Segmenter", "architecture", "build_network", "check_names", "dropout_options"]
