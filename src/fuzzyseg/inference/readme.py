"""The model card as Markdown: README.md of a model folder and of an export."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from fuzzyseg.data.text import markdown
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.networks import Segmenter

LICENCES = {"code": "Apache-2.0 (fuzzyseg)", "backbone": "not declared", "data": "not declared"}
"""Default licences, for runs whose record contains none."""


def readme(card: ModelCard, network: nn.Module, use: Sequence[str] = (), *, in_graph: bool = False) -> str:
    """Return the card as Markdown, including the run's record.

    use: lines on how to use the accompanying files; default: instructions for a model folder. in_graph: whether the
    exported graph includes normalisation and temperature.
    """
    is_custom = not isinstance(network, Segmenter)
    title = "Custom network" if is_custom else f"{card.arch} with encoder {card.encoder}"
    version = f"fuzzyseg {card.version}" if card.version else "fuzzyseg"
    lines = [
        f"# {title}",
        "",
        f"A semantic segmentation model trained with {version}: method {card.method}, loss {card.loss}, "
        f"{card.step} steps.",
        f"Classes, in index order: {', '.join(map(markdown, card.classes))}.",
        "",
        *(use or _use(network)),
        "",
        "## Input",
        "",
        f"{card.channels} channels. {'The graph scales' if in_graph else 'Scale'} values to [0, 1] and "
        f"{'normalises' if in_graph else 'normalise'} them with mean {card.mean} and standard deviation {card.std}.",
        f"Resizing: {card.resizing}. Training crops: {'x'.join(map(str, card.crop))}.",
    ]
    record = card.record or {}
    for heading, part in (
        ("Data", _data(record.get("data", {}))),
        ("Scores", _scores(record.get("scores", {}))),
        ("Calibration", _calibration(card, record.get("calibration") or {}, in_graph=in_graph)),
        ("Limits", _limits(card)),
        ("Licences", _licences({**LICENCES, **record.get("licences", {})})),
    ):
        if section := list(part):
            lines += ["", f"## {heading}", "", *section]
    return "\n".join(lines) + "\n"


def _use(network: nn.Module) -> list[str]:
    if not isinstance(network, Segmenter):
        return [
            "The network is a custom one: use it from Python with its factory, "
            '`fuzzyseg.load("THIS_FOLDER", network=factory).predict(image)`.'
        ]
    elsewhere = 'Elsewhere: `segmentation_models_pytorch.from_pretrained("THIS_FOLDER")`.'
    if not network.loads_elsewhere:
        elsewhere = "segmentation_models_pytorch alone cannot load it: its DPT does not support this patch size."
    return [
        "With fuzzyseg: `fuzzyseg predict THIS_FOLDER IMAGES --out DIR`, or "
        f'`fuzzyseg.load("THIS_FOLDER").predict(image)`. {elsewhere}'
    ]


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    if data:
        yield f"Trained on {markdown(str(data['name']))}: {data['labelled']} labelled images ({data['held_back']} of"
        yield f"them held back), {data['unlabelled']} unlabelled images, {data['val']} for validation"
        yield f"(split {data['split']}, seed {data['seed']})."


def _scores(scores: Mapping[str, Any]) -> Iterator[str]:
    if scores:
        yield f"On {scores['images']} validation images, {scores['protocol']}; last step."
        yield ""
        yield "| class | IoU |"
        yield "|---|---|"
        for name, value in {**scores["per_class"], "**mean**": scores["miou"]}.items():
            shown = name if name == "**mean**" else markdown(name)
            yield f"| {shown} | {'-' if value is None else f'{100 * value:.2f} %'} |"


def _calibration(card: ModelCard, calibration: Mapping[str, Any], *, in_graph: bool) -> Iterator[str]:
    divided = (
        "logits), since the graph divides them by the temperature" if in_graph else f"logits / {card.temperature:.4g})"
    )
    yield f"Probabilities are softmax({divided}."
    if "ece" in calibration:
        yield (
            f"The temperature was fitted on {calibration['fitted_on']}. Expected calibration error on validation "
            f"images: {100 * calibration['ece']:.2f} % without it, {100 * calibration['ece_calibrated']:.2f} % with "
            "it; no pixel was used for both fitting and measuring."
        )


def _limits(card: ModelCard) -> Iterator[str]:
    yield "Scores and calibration apply to images like the validation images, not to images from other sources."
    if card.value_range:
        ranges = ", ".join(f"{kind} {low:g} to {high:g}" for kind, (low, high) in card.value_range.items())
        yield f"Values of the training images: {ranges}."


def _licences(licences: Mapping[str, str]) -> Iterator[str]:
    for name, text in licences.items():
        yield f"- {name}: {markdown(text)}"
