"""Settings for data and augmentation."""

from typing import Any, Literal

from pydantic import Field, PositiveFloat, field_validator

from fuzzyseg.config.base import Numbers, OptionalSize, Section, Texts


class DataConfig(Section):
    """Dataset, splits, normalisation and caching."""

    root: str | None = None
    """Folder with the images (and masks), or a table of them; the layout is detected."""
    layout: str = "auto"
    """Layout of the files: folder, camvid, voc, voc_plain (without SBD), cityscapes, ade20k, lists, manifest (a table),
    or auto: detected."""
    more: Texts = None
    """Further folders with images and masks of the same classes, each in any layout."""
    unlabelled_from: Texts = None
    """Further images without masks: folders or quoted patterns; masks beside them are ignored."""
    classes: list[str] | None = None
    """Class names in index order; None: from dataset.yaml or the layout, else detected in the masks."""
    ignore_index: int | None = Field(None, ge=-(2**15), le=65535)
    """Mask value of pixels to ignore (void); None: from dataset.yaml or the layout, else 255."""
    encoding: Literal["index", "colour", "binary"] | None = None
    """Content of the masks: class indices, colours, or 0 and 255 (binary); None: detected."""
    snap: bool = False
    """Map colours without a class to the nearest class (lossy or smoothed masks); otherwise they are an error."""
    description: str | None = None
    """YAML file to read instead of the data's dataset.yaml."""
    bands: Numbers = None
    """Bands of the image files to use, from 1, in this order; None: all."""
    image_size: OptionalSize = None
    """HxW to which images and masks are resized when they are read; None: not resized."""
    labelled: str | None = None
    """Labelled images: count, fraction (1/8), list file, or every:N (each Nth by name); None: all."""
    split_seed: int | None = Field(None, ge=0)
    """Random seed for selecting labelled and held-out images; None: `seed`."""
    policy: Literal["cover", "random"] = "cover"
    """How labelled images are selected, given a count or fraction. cover: include every class, rarest classes first
    (reads the masks once); random: at random (reads no masks)."""
    val: str | None = None
    """Validation: fraction (0.2), count, list file (or split.json of a run), folder name (val, test), fold:K/N (the Kth
    of N folds of the labelled images) or none; None: the folder val, else a fifth of the images with masks."""
    group: str | None = None
    """Images that a split keeps together: folder, prefix (the name without its trailing number), or a regular
    expression whose first group names the video, patient or scene."""
    unlabelled: Literal["rest", "all"] = "rest"
    """Unlabelled images: the training images that are not labelled (rest), or all of them (all)."""
    void: Literal["ignored", "unlabelled"] = "ignored"
    """Labelled images with void pixels, such as those annotated with scribbles. ignored: only their labelled
    pixels are used; unlabelled: they are also unlabelled images, so that their void pixels get pseudo labels."""
    scores: str | None = None
    """Folder of a teacher's predictions for the unlabelled images (method distill); `fuzzyseg distill` writes it."""
    mean: list[float] | None = None
    """Per-channel mean of the input in [0, 1]; None: as for the pretrained weights, or measured if not plain RGB."""
    std: list[PositiveFloat] | None = None
    """Per-channel standard deviation; None: as for the pretrained weights, or measured if not plain RGB."""
    low: list[float] | None = None
    """Per-channel value that is mapped to 0, for images that are not 8- or 16-bit; None: measured."""
    high: list[float] | None = None
    """Per-channel value that is mapped to 1, for images that are not 8- or 16-bit; None: measured."""
    max_megapixels: int | None = Field(None, ge=1)
    """Size of the largest image that is decoded whole, in millions of pixels: larger TIFF and NumPy files are read in
    windows, other files are rejected. None: 89."""
    balance: Literal["none", "images", "crops"] = "none"
    """How labelled images are sampled. none: each once per epoch; images: first a class, uniformly, then an image that
    contains it; crops: likewise, with a crop that contains it. Use the last two for rare classes."""
    cache: Literal["ram", "disk", "none"] = "ram"
    """Cache of decoded images: in the memory of each data worker (ram), in a folder that all workers and later runs
    share (disk), or none."""
    cache_mib: int = Field(1024, ge=0)
    """Maximum size of the cache in MiB, per data worker (ram) or of the folder (disk)."""
    cache_dir: str | None = None
    """Folder of the disk cache; None: the user's cache folder."""

    @field_validator("labelled", "val", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class AugmentConfig(Section):
    """Random scale, flips and weak colour jitter of all training images, and the blur of strong views."""

    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor of the random scale, applied before the crop."""
    scale_draw: Literal["uniform", "halves"] = "uniform"
    """Distribution of the scale. uniform: over the whole range; halves: with probability 0.5 from below 1, else from
    above."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    vertical_flip: float = Field(0.0, ge=0, le=1)
    """Probability of a vertical flip (aerial, microscopy)."""
    jitter: float = Field(0.0, ge=0, le=1)
    """Strength of random brightness, contrast and saturation changes; strong views have separate settings."""
    blur_reference: int = Field(320, ge=1, json_schema_extra={"source": "ours"})
    """Reference crop side, in pixels: for smaller crops (shorter side), the sigma of the blur of strong views is scaled
    by crop / reference. 320: the smallest published crop; 1: never scaled."""
    on_device: bool = False
    """Apply colour changes on the training device instead of in the data workers; use it if data loading is the
    bottleneck."""

    @field_validator("scale", mode="after")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("expected two factors above 0, in ascending order")
        return value
