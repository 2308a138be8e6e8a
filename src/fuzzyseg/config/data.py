"""Settings of what is learnt from, and of what is made of each image."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from fuzzyseg.config.section import Section, Size, parse_size


class DataConfig(Section):
    """What is learnt from."""

    root: str | None = Field(None, description="Folder with the images (and masks); its layout is recognised.")
    layout: str = Field("auto", description="Name of a layout, or auto.")
    more: list[str] | None = Field(None, description="Further folders with images and masks of the same classes.")
    unlabelled_from: list[str] | None = Field(
        None, description="Further images without masks: folders or quoted patterns; their masks are never looked for."
    )
    classes: list[str] | None = Field(
        None, description="Class names in index order; found from the masks if not given."
    )
    ignore_index: int | None = Field(
        None, ge=-(2**15), le=65535, description="Mask value that is no class; dataset.yaml's or 255."
    )
    encoding: Literal["index", "colour", "binary"] | None = Field(
        None, description="What masks hold: index, colour or binary (0 and 255); None: found out."
    )
    snap: bool = Field(
        False, description="Take colours that no class has (lossy or smoothed masks) for the nearest, not as an error."
    )
    description: str | None = Field(None, description="File to read in place of the data's own dataset.yaml.")
    bands: list[int] | None = Field(
        None, description="Which bands of the image files to use, from 1, in this order; None: all."
    )
    image_size: Size | None = Field(None, description="HxW to resize to on reading; None: the files' size.")
    labelled: str | None = Field(
        None, description="Labelled images: count, fraction (1/8), list file, or every:N (each Nth by name); None: all."
    )
    split_seed: int | None = Field(
        None, description="Seed of the labelled order and of the held-out images; None: seed."
    )
    policy: Literal["cover", "random"] = Field(
        "cover", description="cover: rarest classes first; random: a plain shuffle."
    )
    val: str | None = Field(
        None, description="Validation: fraction (0.2), count, list file or folder name; None: as found."
    )
    group: str | None = Field(
        None, description="Images that a split keeps together: folder, prefix, or a regular expression on the name."
    )
    unlabelled: Literal["rest", "all"] = Field(
        "rest", description="Unlabelled source: the other images, or all images."
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
        None, ge=1, description="Largest image that is decoded whole, in millions of pixels; None: 89."
    )
    balance: Literal["none", "images", "crops"] = Field(
        "none", description="Labelled images drawn for each class alike; crops: and cropped where that class is."
    )
    cache: Literal["ram", "disk", "none"] = Field(
        "ram", description="Where decoded images are kept: in each reading process, on disk for all, or nowhere."
    )
    cache_mib: int = Field(1024, ge=0, description="MiB of the cache: of each reading process, or of the folder.")
    cache_dir: str | None = Field(None, description="Folder of the disk cache; None: the user's cache folder.")

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
    """The geometry and mild colour changes that every training image gets."""

    scale: tuple[float, float] = Field((0.5, 2.0), description="Range of the random scale, before the crop.")
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    vertical_flip: float = Field(0.0, ge=0, le=1, description="Probability of a vertical flip (aerial, microscopy).")
    jitter: float = Field(0.0, ge=0, le=1, description="Strength of brightness, contrast and saturation changes.")
    on_device: bool = Field(
        False, description="Make the colour changes on the training device, where reading keeps a GPU waiting."
    )
