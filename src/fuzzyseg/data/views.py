"""What a method may ask for: views of a sample, streams of samples, and the batch it gets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

Source = Literal["labelled", "unlabelled", "all"]


@dataclass(frozen=True)
class Weak:
    """One image under the training geometry (scale, flip, crop) and, if the run asks for it, mild colour jitter."""


@dataclass(frozen=True)
class WeakStrong:
    """The weak image and `strong` copies of the same crop with strong colour changes; all share one geometry.

    brightness, contrast, saturation: a factor from [1 - strength, 1 + strength]; hue: a turn from [-hue, hue]; in
    random order. add_brightness: brightness is a number from [-brightness, brightness] that is added to the image in
    [0, 1], which is then cut off at 0 and 1. blur_sigma: range of the standard deviation in pixels; in small crops it
    shrinks (`Geometry.blur_reference`).
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
        """Raises ValueError for no strong copy: that is `Weak`."""
        if self.strong < 1:
            raise ValueError(f"strong: found {self.strong}; expected at least 1 (without strong copies: Weak)")


@dataclass(frozen=True)
class CropPair:
    """Two crops of one image that overlap, each with its own flip: `image` and `pair[0]`, with `boxes` and `flips`.

    overlap: the smallest and the largest share of the crop's height and width that the two have in common. iou: the
    same for their intersection over union; both crops are one where fifty draws give none such. stride: the crops lie
    a multiple of it apart in both directions, so that cells of a feature map meet. colours: the strong colour changes
    that each crop gets by itself; None: the mild ones that the run asks for.
    """

    overlap: tuple[float, float] = (0.1, 1.0)
    iou: tuple[float, float] = (0.0, 1.0)
    stride: int = 1
    colours: WeakStrong | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for shares and strides that no pair of crops can have."""
        for name, (low, high) in (("overlap", self.overlap), ("iou", self.iou)):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name}: found {low, high}; expected two shares in [0, 1], the smaller one first")
        if self.stride < 1:
            raise ValueError(f"stride: found {self.stride}; expected at least 1")


View = Weak | WeakStrong | CropPair


@dataclass(frozen=True)
class Stream:
    """An endless, resumable sequence of draws.

    view: what is made of each image. source: the list that is drawn from. partner: the name of another stream of the
    same source; this one then draws the same list in another order and never pairs an image with itself.
    """

    view: View
    source: Source
    partner: str | None = None


class Recolouring(Protocol):
    """Colour changes that were drawn and are still to be made (`changes.Pending`)."""

    @property
    def views(self) -> tuple[Tensor, ...]:
        """The changes, for the image and then for each strong view or the pair's other crop."""

    def made(self, image: Tensor, view: int) -> Tensor:
        """The images (B,C,H,W) with the changes of one view."""


@dataclass
class Batch:
    """What one stream gives a method for one step: B samples (design: `batch[stream]`).

    image (B,Cin,H,W) float, normalised. strong: tuple of the same shape, one per strong view. valid (B,H,W) bool, False
    on padding. mask (B,H,W) int64 with 255 for void, or None (unlabelled). index (B,) place in its source. name: B file
    stems. seed (B,) int64, the sample's own. drawn_for (B,) the class it was drawn for, -1 for none. pair, boxes,
    flips: only from `CropPair`: (image, valid) of the second crop; (B,2,4) y0,x0,y1,x1 before flipping; (B,2) bool.
    statistics: mean and standard deviation, (C,) each, in units: the images are still uint8 or in units, as they were
    read, and the mask too; `to` makes of them what a method gets. None: that is done. pending: colour changes that `to`
    makes first; until then `strong` is empty. None: they are made.
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
    statistics: tuple[Tensor, Tensor] | None = None
    pending: Recolouring | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])

    def to(self, device: torch.device, channels_last: bool = False) -> Batch:
        """The batch on `device` but for the seeds, coloured, normalised, in channels-last memory order if asked."""

        def apply(value: object) -> object:
            if isinstance(value, tuple):
                return tuple(apply(part) for part in value)
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        # what is drawn from a seed is drawn on the CPU: reading it back would make a GPU wait
        moved = {f.name: apply(getattr(self, f.name)) for f in fields(self) if f.name != "seed"}
        batch = replace(self, **moved)  # type: ignore[arg-type]
        if batch.pending is not None:
            batch = batch._recoloured(batch.pending)
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

    def _recoloured(self, pending: Recolouring) -> Batch:
        others = range(1, len(pending.views))
        return replace(
            self,
            image=pending.made(self.image, 0),
            strong=self.strong if self.pair else tuple(pending.made(self.image, view) for view in others),
            pair=None if self.pair is None else (pending.made(self.pair[0], 1), self.pair[1]),
            pending=None,
        )


def normalised(image: Tensor, valid: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(image - mean) / std, 0 where not valid: (B,C,H,W). valid (B,H,W) bool; mean, std (C,) in the image's units.

    image (B,C,H,W): uint8, whose unit is 255, or float32 in units.

    Raises ValueError where mean and std do not fit the channels.
    """
    if not len(mean) == len(std) == image.shape[1]:
        raise ValueError(
            f"found {len(mean)} means, {len(std)} deviations, {image.shape[1]} channels; expected one a channel"
        )
    batch, channels, height, width = image.shape
    unit = 255 if image.dtype == torch.uint8 else 1
    scale, shift = 1 / (unit * std), -mean / std
    together = channels > 1 and image.is_contiguous(memory_format=torch.channels_last)
    if together:  # rows of pixels with all their bands: long vectors, where bands alone would be short ones
        rows = image.movedim(1, -1).reshape(batch * height, width * channels)
        fresh = None if rows.is_floating_point() else rows.float()  # for bytes: written into below
        rows = torch.addcmul(shift.repeat(width), rows if fresh is None else fresh, scale.repeat(width), out=fresh)
        result = rows.view(batch, height, width, channels).movedim(-1, 1)
    else:
        result = torch.addcmul(shift.view(-1, 1, 1), image.float(), scale.view(-1, 1, 1))
    if result.device.type != "cpu":  # to look whether there is padding would make it wait
        return result.masked_fill_(~valid.unsqueeze(1), 0)
    for padded, seen in zip(result, valid, strict=True):
        if not seen.all():
            padded.masked_fill_(~seen, 0)
    return result
