"""Prediction of logits or labels for images of any size."""

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuzzyseg.data import DataError, Item
from fuzzyseg.data.io.header import read_header
from fuzzyseg.data.io.image import Image, Picture, read_image
from fuzzyseg.data.sample import Box, Size, attempt
from fuzzyseg.data.text import printable
from fuzzyseg.data.views import known_pixels
from fuzzyseg.inference.model_card import ModelCard
from fuzzyseg.inference.sliding_window import TILE, average_windows
from fuzzyseg.ops.module_mode import evaluating
from fuzzyseg.ops.resize import resize_labels, resize_logits

log = logging.getLogger(__name__)
Input: TypeAlias = Picture | Image | Tensor

MAX_PIXELS = 2**22
"""Images with more pixels are predicted in tiles (`TILE`), even in mode `whole`."""


@dataclass(frozen=True)
class Protocol:
    """How an image is predicted.

    mode: `whole` (the image at once) or `sliding` (windows that overlap by a third). window: (H, W) of the windows;
    default: the training crop. scales: factors of the image size. flip: also predict the mirrored image. The
    probabilities of all views are averaged. blend: weight windows less towards their borders (see `average_windows`),
    and predict all views of a large image window by window; False: equal weights, as published. Raises ValueError for
    invalid values.
    """

    mode: str = "whole"
    window: Size | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    blend: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("whole", "sliding"):
            raise ValueError(f"evaluate.mode: found {self.mode!r}; expected whole or sliding")
        if not self.scales or not all(0 < scale < float("inf") for scale in self.scales):
            raise ValueError(f"evaluate.scales: found {list(self.scales)}; expected at least one, finite and above 0")
        if self.window is not None and min(self.window) < 1:
            raise ValueError(f"evaluate.window: found {self.window}; height and width must be at least 1")

    def describe(self, card: ModelCard) -> str:
        """Return a description of the protocol."""
        windows = self.window or card.crop
        parts = ["whole image" if self.mode == "whole" else f"windows of {windows[0]}x{windows[1]}, stride 2/3"]
        if card.image_size is not None:
            parts.append(f"input resized to {card.image_size[0]}x{card.image_size[1]}")
        parts.append("scored at original size")
        if self.scales == (1.0,):
            parts.append("1 scale")
        else:
            parts.append("scales " + " ".join(f"{scale:g}" for scale in self.scales))
        return ", ".join([*parts, "flip" if self.flip else "no flip", *["windows blended"] * self.blend])

    @property
    def views(self) -> list[tuple[float, bool]]:
        """The forward passes as (scale, mirrored)."""
        return [(scale, mirrored) for scale in self.scales for mirrored in ((False, True) if self.flip else (False,))]


WHOLE = Protocol()


@dataclass(frozen=True)
class Prediction:
    """The segmentation of an image.

    labels (H,W) int64: the most probable class. probabilities (C,H,W) float32, calibrated by the card's temperature.
    uncertainty (H,W) float32: entropy of the probabilities over log C, in [0, 1].
    """

    labels: Tensor
    probabilities: Tensor
    uncertainty: Tensor


class Predictor:
    """Predicts images at their original size.

    An image is resized to the card's `image_size`, if any, normalised, and padded at the right and bottom by edge
    replication to a size that the network accepts; the result is cropped and resized back. The network is in evaluation
    mode only during calls, which record no gradients.
    """

    def __init__(self, network: nn.Module, card: ModelCard, device: torch.device | str = "cpu") -> None:
        self.network, self.card, self._checked = network.to(device), card, set[str]()
        self.device = torch.device(device)
        shape = (1, card.channels, 1, 1)
        self._mean = torch.tensor(card.mean, device=device, dtype=torch.float32).expand(card.channels).view(shape)
        self._std = torch.tensor(card.std, device=device, dtype=torch.float32).expand(card.channels).view(shape)

    @property
    def classes(self) -> list[str]:
        """Class names in index order."""
        return self.card.classes

    def logits(self, image: Input, protocol: Protocol = WHOLE) -> Tensor:
        """Return logits (C,H,W) float32 at the size of the image.

        image: a file or PIL image, read as in training (EXIF orientation applied), with a warning if the first file of
        a dtype has a value range unlike the training images'; or a uint8 array (H,W,Cin) or tensor (Cin,H,W). With
        `levels`, also float32 already scaled by them, or an array of file values. For several views or windows, returns
        the logarithm of their mean probability. Raises DataError for images of other shapes or types.
        """
        return self.batch_logits(self._pixels(image), protocol)[0]

    def labels(self, image: Input, protocol: Protocol = WHOLE) -> Tensor:
        """Return the most probable classes (H,W) int64. Like `logits`, but needs far less memory."""
        return self.batch_labels(self._pixels(image), protocol)[0]

    @overload
    def predict(self, image: Input, protocol: Protocol = WHOLE) -> Prediction: ...

    @overload
    def predict(self, image: Sequence[Input], protocol: Protocol = WHOLE) -> list[Prediction]: ...

    def predict(self, image: Input | Sequence[Input], protocol: Protocol = WHOLE) -> Prediction | list[Prediction]:
        """Return labels, probabilities and uncertainty for an image (see `logits`) or each image in a list or batch."""
        if isinstance(image, list | tuple) or (isinstance(image, Tensor | np.ndarray) and image.ndim == 4):
            return [self.predict(each, protocol) for each in image]
        logits = self.logits(image, protocol)  # type: ignore[arg-type]
        probabilities = self.probabilities(logits)
        entropy = -torch.xlogy(probabilities, probabilities).sum(0) / math.log(len(probabilities))
        return Prediction(logits.argmax(0), probabilities, entropy.clamp(0, 1))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return calibrated probabilities (C,...) for logits (C,...) from `logits`."""
        return (logits / self.card.temperature).softmax(0)

    def batch_logits(self, images: Tensor, protocol: Protocol = WHOLE) -> Tensor:
        """Return the `logits` (B,C,H,W) of a batch. images: as for `batch_labels`."""
        with torch.no_grad(), evaluating(self.network):
            scores = self._scores(self._input(images), protocol)
            return resize_logits(scores, images.shape[-2:], align_corners=False)

    def batch_labels(self, images: Tensor, protocol: Protocol = WHOLE) -> Tensor:
        """Return `labels` (B,H,W) of images (B,Cin,H,W), uint8 or float32, or (B,Cin+1,H,W) from `Reader.read`."""
        size = (images.shape[-2], images.shape[-1])
        with torch.no_grad(), evaluating(self.network):
            inputs = self._input(images)
            window = self._window(inputs, protocol)
            if protocol.views == [(1.0, False)] and window is not None and inputs.shape[-2:] == size:
                return torch.cat([band.argmax(1) for band in self._sweep(inputs, window, protocol)], 1)
            return resize_labels(self._scores(inputs, protocol), size)

    def reads_by_windows(self, size: Size, protocol: Protocol = WHOLE) -> bool:
        """Return whether an image of this size is predicted in windows, so it never has to be loaded in full."""
        return (
            self.card.image_size is None
            and (protocol.blend or protocol.views == [(1.0, False)])
            and (protocol.mode == "sliding" or size[0] * size[1] > MAX_PIXELS)
        )

    def probability_rows(
        self, read: Callable[[Box], Image], size: Size, protocol: Protocol = WHOLE
    ) -> Iterator[tuple[Box, Tensor]]:
        """Yield (box, probabilities (C,rows,W)) for bands of rows, top to bottom, of an image that is read in windows.

        read: returns the region y0, x0, y1, x1 as an array in the format of `read_image`. size: (H,W) of the image, for
        which `reads_by_windows` must be true.
        """

        def predict(box: Box) -> Tensor:
            inputs = self._normalised(torch.tensor(read(box)).movedim(-1, 0).unsqueeze(0))
            single = protocol.views == [(1.0, False)]
            with torch.no_grad(), evaluating(self.network):  # left before each yield: the caller may train
                return self._forward(inputs).softmax(1) if single else self._scores(inputs, protocol).softmax(1)

        window, top = protocol.window or (self.card.crop if protocol.mode == "sliding" else TILE), 0
        for band in average_windows(size, window, predict, self._alignment(protocol)):
            yield (top, 0, top + band.shape[2], size[1]), band[0]
            top += band.shape[2]

    def training_logits(self, image: Tensor) -> Tensor:
        """Return logits (C,H,W) float32 of an image from `Reader.read` at training scale; whole image, one view."""
        with torch.no_grad(), evaluating(self.network):
            return self._forward(self._normalised(image.unsqueeze(0)))[0]

    def stride(self) -> float:
        """Return the ratio of the network's input size to its logits' size, measured on an all-zero training crop."""
        divisor = int(getattr(self.network, "divisor", 1))
        height, width = (-(-side // divisor) * divisor for side in self.card.crop)
        with torch.no_grad(), evaluating(self.network):
            logits = self.network(torch.zeros(1, self.card.channels, height, width, device=self.device))
        return height / int(logits.shape[-2])

    def _pixels(self, image: Input) -> Tensor:
        """Return the image in the format of `batch_labels`, with B = 1."""
        if isinstance(image, Picture):
            card, file = self.card, Path(image) if isinstance(image, str) else image
            stored = read_image(file, card.channels, bands=card.bands, levels=card.levels, with_known=True)
            path = file if isinstance(file, Path) else Path(os.fsdecode(getattr(file, "filename", "")))
            head = attempt(read_header, path) if path.is_file() else None
            if head is not None and head.dtype not in self._checked:
                self._checked.add(head.dtype)
                for note in card.range_warnings([Item(path, None, "")]):
                    log.warning(printable(note))
            return torch.from_numpy(stored).movedim(-1, 0).unsqueeze(0)
        if not isinstance(image, Tensor | np.ndarray):
            type_name = type(image).__name__
            raise DataError(f"found an image of type {type_name}; expected a path, a PIL image, an array or a tensor")
        levels, kind = self.card.levels, str(image.dtype).removeprefix("torch.")
        floats = any("float" in name for name in self.card.value_range or ["float"])  # among the training images
        numbers = isinstance(image, np.ndarray) and image.dtype.kind in "ui" + "f" * floats
        fits = kind == "uint8" or (levels is not None and (kind == "float32" or numbers))
        channels = 0 if image.ndim != 3 or 0 in image.shape else image.shape[0 if isinstance(image, Tensor) else -1]
        if not fits or channels != self.card.channels:
            kinds = "uint8" if levels is None else "uint8, float32 mapped to [0, 1], or the values of the image files"
            raise DataError(
                f"found an image of shape {tuple(image.shape)} and type {image.dtype}; expected {kinds}, an array "
                f"(H, W, {self.card.channels}) or a tensor ({self.card.channels}, H, W)"
            )
        if levels is not None and kind != "float32":
            array = image.movedim(0, -1).cpu().numpy() if isinstance(image, Tensor) else image
            image = levels.units(array, Path("the image"))
        pixels = image if isinstance(image, Tensor) else torch.tensor(np.ascontiguousarray(image)).movedim(-1, 0)
        return pixels.unsqueeze(0)

    def _input(self, images: Tensor) -> Tensor:
        """Return the network input for images (B,Cin,H,W): resized as in training and normalised."""
        size = self.card.image_size
        if size is not None and tuple(images.shape[-2:]) != tuple(size):
            images = F.interpolate(images.cpu(), size=size, mode="bilinear", antialias=True)  # uint8: rounds like PIL
        return self._normalised(images)

    def _normalised(self, images: Tensor) -> Tensor:
        images = images.to(self.device)
        known = known_pixels(images, self.card.channels)
        images = images[:, : self.card.channels]
        units = images.float() / 255 if images.dtype == torch.uint8 else images
        inputs = (units - self._mean) / self._std
        return inputs if known is None else inputs.masked_fill(~known.unsqueeze(1), 0)  # as in training

    def _window(self, inputs: Tensor, protocol: Protocol) -> Size | None:
        """Return the window size, or None for the whole image at once."""
        if protocol.mode == "sliding":
            return protocol.window or self.card.crop
        return TILE if inputs.shape[-2] * inputs.shape[-1] > MAX_PIXELS else None

    def _forward(self, inputs: Tensor) -> Tensor:
        """Return logits (B,C,h,w) float32 at the size of the inputs (B,Cin,h,w), padded if necessary."""
        height, width = inputs.shape[-2:]
        divisor = int(getattr(self.network, "divisor", 1))
        below, right = -height % divisor, -width % divisor
        padded = F.pad(inputs, (0, right, 0, below), mode="replicate") if below or right else inputs
        return resize_logits(self._output(padded), padded.shape[-2:])[..., :height, :width]

    def _output(self, inputs: Tensor) -> Tensor:
        """Return the network's output as float32."""
        return self.network(inputs).float()  # type: ignore[no-any-return]

    def _alignment(self, protocol: Protocol) -> int | None:
        """Return the argument `blend` of `average_windows`."""
        return int(getattr(self.network, "divisor", 1)) if protocol.blend else None

    def _sweep(self, inputs: Tensor, window: Size, protocol: Protocol) -> Iterator[Tensor]:
        def predict(box: Box) -> Tensor:
            return self._forward(inputs[..., box[0] : box[2], box[1] : box[3]]).softmax(1)

        return average_windows((inputs.shape[-2], inputs.shape[-1]), window, predict, self._alignment(protocol))

    def _scores(self, inputs: Tensor, protocol: Protocol) -> Tensor:
        """Return logits (B,C,h,w) at the size of the inputs, averaged over the protocol's views and windows."""
        views = protocol.views
        if views == [(1.0, False)] and self._window(inputs, protocol) is None:
            return self._forward(inputs)
        size, total = (inputs.shape[-2], inputs.shape[-1]), None
        for scale, mirrored in views:
            view = inputs
            if scale != 1:
                scaled = [max(1, round(scale * side)) for side in size]
                view = F.interpolate(view, size=scaled, mode="bilinear", antialias=True)
            view = view.flip(-1) if mirrored else view
            window = self._window(view, protocol)
            parts = [self._forward(view).softmax(1)] if window is None else self._sweep(view, window, protocol)
            logits = torch.cat(list(parts), 2)
            logits = resize_logits(logits.flip(-1) if mirrored else logits, size, align_corners=False)
            total = logits if total is None else total + logits
        assert total is not None
        return (total / len(views)).clamp_min(torch.finfo(total.dtype).tiny).log()
