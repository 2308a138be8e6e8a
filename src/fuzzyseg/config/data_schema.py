"""Settings of what is learnt from, and of what is made of each image."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from fuzzyseg.config.base import Section, Size, parse_size


class DataConfig(Section):
    """What is learnt from."""

    root: str | None = Field(
        None, description="Folder with the images (and masks), or a table of them; its layout is recognised."
    )
    layout: str = Field(
        "auto",
        description="How the files lie: folder, camvid, voc, voc_plain (without SBD), cityscapes, ade20k, lists, "
        "manifest (a table), or auto: recognised.",
    )
    more: list[str] | None = Field(
        None, description="Further folders with images and masks of the same classes, each in a layout of its own."
    )
    unlabelled_from: list[str] | None = Field(
        None, description="Further images without masks: folders or quoted patterns; their masks are never looked for."
    )
    classes: list[str] | None = Field(
        None,
        description="Class names in index order; None: dataset.yaml's or the layout's, else counted in the masks.",
    )
    ignore_index: int | None = Field(
        None,
        ge=-(2**15),
        le=65535,
        description="Mask value that is no class (void); None: dataset.yaml's or the layout's, else 255.",
    )
    encoding: Literal["index", "colour", "binary"] | None = Field(
        None, description="What masks hold: class indices, colours, or 0 and 255 (binary); None: found out."
    )
    snap: bool = Field(
        False, description="Take colours that no class has (lossy or smoothed masks) for the nearest, not as an error."
    )
    description: str | None = Field(None, description="YAML file to read in place of the data's own dataset.yaml.")
    bands: list[int] | None = Field(
        None, description="Which bands of the image files to use, from 1, in this order; None: all."
    )
    image_size: Size | None = Field(
        None, description="HxW to resize images and masks to on reading; None: the files' size."
    )
    labelled: str | None = Field(
        None, description="Labelled images: count, fraction (1/8), list file, or every:N (each Nth by name); None: all."
    )
    split_seed: int | None = Field(
        None, description="Seed of the labelled order and of the held-out images; None: that of the run (seed)."
    )
    policy: Literal["cover", "random"] = Field(
        "cover",
        description="How labelled images are chosen where a number is asked for. cover: so that each class occurs, the "
        "rarest first (reads the masks once); random: a plain shuffle (reads none).",
    )
    val: str | None = Field(
        None,
        description="Validation: fraction (0.2), count, list file, folder name (val, test) or none; None: "
        "the folder val, else a fifth of the images with masks.",
    )
    group: str | None = Field(
        None,
        description="Images that a split keeps together: folder, prefix (the name without the number at its end), "
        "or a regular expression whose first group names the video, patient or scene.",
    )
    unlabelled: Literal["rest", "all"] = Field(
        "rest",
        description="What is used without masks: the training images that are not labelled (rest), or all of them, the "
        "labelled ones too.",
    )
    mean: list[float] | None = Field(
        None, description="Per-channel mean of the input in [0, 1]; None: the weights', measured if not plain RGB."
    )
    std: list[float] | None = Field(
        None, description="Per-channel standard deviation; None: the weights', measured if not plain RGB."
    )
    low: list[float] | None = Field(
        None, description="Per-channel value that becomes 0, for images not of 8 or 16 bits; None: measured."
    )
    high: list[float] | None = Field(
        None, description="Per-channel value that becomes 1, for images not of 8 or 16 bits; None: measured."
    )
    max_megapixels: int | None = Field(
        None,
        ge=1,
        description="Millions of pixels that are decoded at once: larger TIFF and NumPy files are read by windows, "
        "other files are refused. None: 89.",
    )
    balance: Literal["none", "images", "crops"] = Field(
        "none",
        description="How labelled images are drawn. none: each once an epoch; images: for a class first, each class "
        "alike, then one of the images that hold it; crops: likewise, and cropped where it is. For rare classes.",
    )
    cache: Literal["ram", "disk", "none"] = Field(
        "ram",
        description="Where decoded images are kept: in the memory of each reading process (ram), in one folder for all "
        "processes and later runs (disk), or nowhere.",
    )
    cache_mib: int = Field(
        1024, ge=0, description="Most MiB that the cache takes: in each reading process (ram), or of the folder (disk)."
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
    """The geometry and mild colour changes that every training image gets, and the blur of strong views."""

    scale: tuple[float, float] = Field(
        (0.5, 2.0),
        description="Smallest and largest factor by which an image is resized at random, before it is cropped.",
    )
    scale_draw: Literal["uniform", "halves"] = Field(
        "uniform",
        description="How that factor is drawn. uniform: evenly from the whole range; halves: half of the time from "
        "below 1, else from above.",
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    vertical_flip: float = Field(0.0, ge=0, le=1, description="Probability of a vertical flip (aerial, microscopy).")
    jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Strength of random changes of brightness, contrast and saturation; strong views have their own.",
    )
    blur_reference: int = Field(
        320,
        ge=1,
        description="Shorter side of the crop, in pixels, from which on the blur of strong views has the published "
        "sigma; that of smaller crops shrinks in proportion, so that a blur hides as much of an object. "
        "320: the smallest published crop; 1: the published sigma for all.",
    )
    on_device: bool = Field(
        False,
        description="Make the colour changes on the training device, not when reading: for a GPU that waits.",
    )
