"""Views and streams requested by a method, and the batches that it receives."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

Source = Literal["labelled", "unlabelled", "all"]


@dataclass(frozen=True)
class Weak:
    """One view with random scale, crop and flip, and weak colour jitter if `augment.jitter` is set."""


@dataclass(frozen=True)
class WeakStrong:
    """A weak view, and `strong` copies of the same crop (same geometry) with strong photometric transforms.

    brightness, contrast, saturation: strength s of a factor drawn from [1 - s, 1 + s]. hue: rotation, drawn from [-hue,
    hue]. These four are applied in random order. add_brightness: instead of multiplying, add a number from
    [-brightness, brightness] to the image in [0, 1] and clamp the sum. blur_sigma: range of the standard deviation in
    pixels, which is reduced for small crops (`Geometry.blur_reference`).
    """

    strong: int = 1
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.25
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    add_brightness: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError if `strong` is less than 1."""
        if self.strong < 1:
            raise ValueError(f"strong: found {self.strong}; expected at least 1 (without strong copies: Weak)")


@dataclass(frozen=True)
class CropPair:
    """Two overlapping, independently flipped crops of one image: `image` and `pair[0]` of the `Batch`.

    overlap: range of the crops' overlap along each axis, as a fraction of the crop's side. iou: range of the crops'
    intersection over union; after 50 rejected draws, both crops coincide. stride: the offset between the crops is a
    multiple of this along both axes, so that their feature maps are aligned. colours: strong photometric transforms,
    drawn separately for each crop. Default: weak colour jitter.
    """

    overlap: tuple[float, float] = (0.1, 1.0)
    iou: tuple[float, float] = (0.0, 1.0)
    stride: int = 1
    colours: WeakStrong | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for invalid ranges or strides."""
        for name, (low, high) in (("overlap", self.overlap), ("iou", self.iou)):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name}: found {low, high}; expected two shares in [0, 1] in ascending order")
        if self.stride < 1:
            raise ValueError(f"stride: found {self.stride}; expected at least 1")


View = Weak | WeakStrong | CropPair


@dataclass(frozen=True)
class Stream:
    """An endless, resumable sequence of draws.

    view: how samples are created from an image. source: list of images to draw from. partner: name of another stream
    with the same source; this stream draws the same images in a different order that never pairs an image with itself.
    scores: whether to load a teacher's stored predictions (`data.scores`) as well.
    """

    view: View
    source: Source
    partner: str | None = None
    scores: bool = False


class PendingChanges(Protocol):
    """Photometric transforms that have been drawn but not applied (`transforms.photometric.Pending`)."""

    @property
    def views(self) -> tuple[Tensor, ...]:
        """Transforms of the image, then of each strong view or of the second crop."""

    def apply(self, image: Tensor, view: int) -> Tensor:
        """Apply the transforms of one view to images (B,C,H,W)."""


@dataclass
class Batch:
    """B samples from one stream.

    image (B,Cin,H,W) float, normalised. strong: one tensor of the same shape per strong view. valid (B,H,W) bool, False
    in the padding. mask (B,H,W) int64 with 255 for void, or None (unlabelled). index (B,): indices in the source. name:
    names of the B items. seed (B,) int64: seed of each sample. drawn_for (B,): class that the sample was drawn for, or
    -1. pair, boxes, flips (only for `CropPair`): (image, valid) of the second crop; (B,2,4) y0, x0, y1, x1 before
    flipping; (B,2) bool. scores (B,C,H,W) float: the teacher's log-probabilities, if the stream has `scores`.

    Before `to`, images and mask have their stored dtype (uint8, or float32 in units), `statistics` contains the mean
    and standard deviation, (C,) each, in units, and `pending` the photometric transforms to apply on the device, if
    any; `strong` is empty until they are applied. After `to`, both are None.
    """

    image: Tensor
    valid: Tensor
    mask: Tensor | None
    index: Tensor
    name: list[str]
    seed: Tensor
    drawn_for: Tensor
    strong: tuple[Tensor, ...] = ()
    pair: tuple[Tensor, Tensor] | None = None
    boxes: Tensor | None = None
    flips: Tensor | None = None
    scores: Tensor | None = None
    statistics: tuple[Tensor, Tensor] | None = None
    pending: PendingChanges | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def to(self, device: torch.device, channels_last: bool = False) -> Batch:
        """Return the batch on `device` (except the seeds), with pending transforms applied and images normalised."""

        def apply(value: object) -> object:
            if isinstance(value, tuple):
                return tuple(apply(part) for part in value)
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        # seeds stay on the CPU, where they are used: reading them back would synchronise a GPU
        moved = {f.name: apply(getattr(self, f.name)) for f in fields(self) if f.name != "seed"}
        batch = replace(self, **moved)  # type: ignore[arg-type]
        if batch.pending is not None:
            batch = batch._apply(batch.pending)
        form = torch.channels_last if channels_last else torch.contiguous_format

        def image(values: Tensor, valid: Tensor) -> Tensor:
            if batch.statistics is not None:
                values = normalised(values, valid, *batch.statistics)
            return values.contiguous(memory_format=form)

        return replace(
            batch,
            image=image(batch.image, batch.valid),
            strong=tuple(image(each, batch.valid) for each in batch.strong),
            pair=None if batch.pair is None else (image(*batch.pair), batch.pair[1]),
            mask=None if batch.mask is None else batch.mask.long(),
            statistics=None,
        )

    def _apply(self, pending: PendingChanges) -> Batch:
        others = range(1, len(pending.views))
        return replace(
            self,
            image=pending.apply(self.image, 0),
            strong=self.strong if self.pair else tuple(pending.apply(self.image, view) for view in others),
            pair=None if self.pair is None else (pending.apply(self.pair[0], 1), self.pair[1]),
            pending=None,
        )


def known_pixels(image: Tensor, channels: int) -> Tensor | None:
    """Return the known pixels (..., H, W) bool from the extra band of an image (..., C+1, H, W), or None without one.

    Resampled pixels that depend on a missing pixel are not known.
    """
    if image.shape[-3] == channels:
        return None
    return image[..., channels, :, :] >= (255 if image.dtype == torch.uint8 else 1 - 1e-6)


def normalised(image: Tensor, valid: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (image - mean) / std, (B,C,H,W) float32, with 0 where not valid.

    image (B,C,H,W): uint8 (divided by 255) or float32 in units. valid (B,H,W) bool. mean, std (C,): in units. Raises
    ValueError if mean and std do not match the channels.
    """
    if not len(mean) == len(std) == image.shape[1]:
        raise ValueError(f"found {len(mean)} means, {len(std)} deviations, {image.shape[1]} channels; expected equal")
    batch, channels, height, width = image.shape
    unit = 255 if image.dtype == torch.uint8 else 1
    scale, shift = 1 / (unit * std), -mean / std
    together = channels > 1 and image.is_contiguous(memory_format=torch.channels_last)
    if together:  # one row per image row with all channels: long vectors are faster than short ones
        rows = image.movedim(1, -1).reshape(batch * height, width * channels)
        fresh = None if rows.is_floating_point() else rows.float()  # a buffer for the result
        rows = torch.addcmul(shift.repeat(width), rows if fresh is None else fresh, scale.repeat(width), out=fresh)
        result = rows.view(batch, height, width, channels).movedim(-1, 1)
    else:
        result = torch.addcmul(shift.view(-1, 1, 1), image.float(), scale.view(-1, 1, 1))
    if result.device.type != "cpu":  # checking for padding first would synchronise the device
        return result.masked_fill_(~valid.unsqueeze(1), 0)
    for padded, seen in zip(result, valid, strict=True):
        if not seen.all():
            padded.masked_fill_(~seen, 0)
    return result
