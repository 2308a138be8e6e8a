"""Settings of the data, and of geometry and weak colour jitter."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from fuzzyseg.config.base import Section, Size, parse_size


class DataConfig(Section):
    """The data."""

    root: str | None = Field(
        None, description="Folder with the images (and masks), or a table of them; the layout is detected."
    )
    layout: str = Field(
        "auto",
        description="Layout of the files: folder, camvid, voc, voc_plain (without SBD), cityscapes, ade20k, lists, "
        "manifest (a table), or auto: detected.",
    )
    more: list[str] | None = Field(
        None, description="Further folders with images and masks of the same classes, each in any layout."
    )
    unlabelled_from: list[str] | None = Field(
        None, description="Further images without masks: folders or quoted patterns; masks beside them are ignored."
    )
    classes: list[str] | None = Field(
        None,
        description="Class names in index order; None: from dataset.yaml or the layout, else detected in the masks.",
    )
    ignore_index: int | None = Field(
        None,
        ge=-(2**15),
        le=65535,
        description="Mask value of ignored pixels (void); None: from dataset.yaml or the layout, else 255.",
    )
    encoding: Literal["index", "colour", "binary"] | None = Field(
        None, description="What masks hold: class indices, colours, or 0 and 255 (binary); None: detected."
    )
    snap: bool = Field(
        False, description="Map unknown colours (lossy or smoothed masks) to the nearest class; else they are an error."
    )
    description: str | None = Field(None, description="YAML file to read instead of the data's dataset.yaml.")
    bands: list[int] | None = Field(
        None, description="Bands of the image files to use, from 1, in this order; None: all."
    )
    image_size: Size | None = Field(
        None, description="HxW to which images and masks are resized on reading; None: not resized."
    )
    labelled: str | None = Field(
        None, description="Labelled images: count, fraction (1/8), list file, or every:N (each Nth by name); None: all."
    )
    split_seed: int | None = Field(
        None, description="Seed of the labelled order and of the held-out images; None: `seed`."
    )
    policy: Literal["cover", "random"] = Field(
        "cover",
        description="How a number of labelled images is chosen. cover: so that each class occurs, the rarest first "
        "(reads the masks once); random: a shuffle (reads no mask).",
    )
    val: str | None = Field(
        None,
        description="Validation: fraction (0.2), count, list file, folder name (val, test) or none; None: "
        "the folder val, else a fifth of the images with masks.",
    )
    group: str | None = Field(
        None,
        description="Images that a split keeps together: folder, prefix (the name without its trailing number), "
        "or a regular expression whose first group names the video, patient or scene.",
    )
    unlabelled: Literal["rest", "all"] = Field(
        "rest",
        description="Unlabelled images: the training images that are not labelled (rest), or all of them (all).",
    )
    mean: list[float] | None = Field(
        None,
        description="Per-channel mean of the input in [0, 1]; None: that of the weights, measured if not plain RGB.",
    )
    std: list[float] | None = Field(
        None, description="Per-channel standard deviation; None: that of the weights, measured if not plain RGB."
    )
    low: list[float] | None = Field(
        None, description="Per-channel value that is mapped to 0, for images not of 8 or 16 bits; None: measured."
    )
    high: list[float] | None = Field(
        None, description="Per-channel value that is mapped to 1, for images not of 8 or 16 bits; None: measured."
    )
    max_megapixels: int | None = Field(
        None,
        ge=1,
        description="Largest image that is decoded whole, in millions of pixels: larger TIFF and NumPy files are read "
        "by windows, other files are refused. None: 89.",
    )
    balance: Literal["none", "images", "crops"] = Field(
        "none",
        description="How labelled images are drawn. none: each once per epoch; images: a class first, uniformly, then "
        "an image that contains it; crops: likewise, with a crop that shows it. For rare classes.",
    )
    cache: Literal["ram", "disk", "none"] = Field(
        "ram",
        description="Cache of decoded images: in the memory of each data worker (ram), in a folder that all workers "
        "and later runs share (disk), or none.",
    )
    cache_mib: int = Field(
        1024, ge=0, description="Largest size of the cache in MiB: of each data worker (ram), or of the folder (disk)."
    )
    cache_dir: str | None = Field(None, description="Folder of the cache on disk; None: the user's cache folder.")

    _size = field_validator("image_size", mode="before")(parse_size)

    @field_validator("bands", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value

    @field_validator("more", "unlabelled_from", mode="before")
    @classmethod
    def _places(cls, value: Any) -> Any:
        return [part for part in value.split(",") if part] if isinstance(value, str) else value

    @field_validator("labelled", "val", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class AugmentConfig(Section):
    """Random geometry and weak colour jitter of all training images, and the blur of strong views."""

    scale: tuple[float, float] = Field(
        (0.5, 2.0),
        description="Smallest and largest factor of the random scale, applied before the crop.",
    )
    scale_draw: Literal["uniform", "halves"] = Field(
        "uniform",
        description="Distribution of the scale. uniform: over the whole range; halves: with probability 0.5 from below "
        "1, else from above.",
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    vertical_flip: float = Field(0.0, ge=0, le=1, description="Probability of a vertical flip (aerial, microscopy).")
    jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Strength of random brightness, contrast and saturation; strong views have their own.",
    )
    blur_reference: int = Field(
        320,
        ge=1,
        description="Shorter side of the crop, in pixels, below which the sigma of the blur of strong views shrinks in "
        "proportion, so that it hides as much of an object. 320: the smallest published crop; 1: never.",
        json_schema_extra={"source": "ours"},
    )
    on_device: bool = Field(
        False,
        description="Apply colour changes on the training device instead of in the data workers: if the GPU waits.",
    )
