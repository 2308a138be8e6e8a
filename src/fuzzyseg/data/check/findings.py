"""Findings of a dataset check, each with the problem, the files and a remedy."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fuzzyseg.data.check.duplicates import Group
from fuzzyseg.data.check.files import FileInfo
from fuzzyseg.data.check.labels import NO_CLASS, Masks, MaskStatistics, likely_void, mask_statistics
from fuzzyseg.data.datasets.pairing import suggest_image
from fuzzyseg.data.io.header import file_size
from fuzzyseg.data.labels.class_lists import is_generated
from fuzzyseg.data.labels.decode import mask_of
from fuzzyseg.data.labels.detect import subsample
from fuzzyseg.data.sample import Colour, DataSet, Files, Item
from fuzzyseg.data.text import counted, short

TRAINING, EVALUATION = ("labelled", "unlabelled"), ("val", "test")
"""Names of the image lists used for training and for evaluation."""

FEW_PIXELS, FEW_SHARE, SEVERAL = 100, 1e-4, 10
"""A class is rare if it has fewer than `FEW_PIXELS` pixels, less than `FEW_SHARE` of all pixels, or occurs in only one
of `SEVERAL` or more masks."""

SAMPLED_MASKS, SAMPLED_PIXELS = 16, 2**23
"""Maximum number of masks and of pixels in which training looks for classes that may be void."""

Detail = dict[str, Any]
Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """An error (training would fail, or its score would be meaningless) or a warning.

    kind: machine-readable identifier. what: summary. advice: remedy. details: one entry per file or group, with `text`
    and machine-readable values such as `file`.
    """

    level: Level
    kind: str
    what: str
    advice: str
    details: tuple[Detail, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the finding as a JSON-serialisable dict."""
        about = {"level": self.level, "kind": self.kind, "what": self.what, "advice": self.advice}
        return {**about, "count": len(self.details), "details": list(self.details)}


def _finding(level: Level, kind: str, what: str, advice: str, details: Iterable[Detail]) -> list[Finding]:
    """Return a list with one finding, or an empty list if there are no details."""
    details = tuple(details)
    return [Finding(level, kind, what, advice, details)] if details else []


def from_message(kind: str, what: str, message: str) -> Finding:
    """Return an error finding for a message that contains the remedy, such as the message of a DataError."""
    return Finding("error", kind, what, "correct it as described, then run the check again", ({"text": message},))


def unreadable_files(files: Sequence[FileInfo]) -> list[Finding]:
    """Report files that cannot be decoded."""
    bad = [each for each in files if each.problem is not None]
    advice = "copy them again from their source, or delete them (images together with their masks)"
    details = ({"file": str(each.path), "text": each.problem} for each in bad)
    return _finding("error", "unreadable", f"{counted(len(bad), 'file')} cannot be read", advice, details)


def unmatched_masks(lists: Sequence[Files], limit: int = 20) -> list[Finding]:
    """Report masks without an image, suggesting the most similar image name for the first `limit`."""
    bad = [(path, files) for files in lists for path in files.unmatched_masks]
    details = []
    for place, (path, files) in enumerate(bad):
        likely = suggest_image(path, files) if place < limit else ""  # slow for many names
        details.append({"file": str(path), "text": f"{path}: no image with this name.{likely}"})
    advice = "rename each mask to the name of its image, add the image, or delete the mask"
    return _finding("error", "orphaned", f"{counted(len(bad), 'mask')} without an image", advice, details)


def band_mismatches(files: Sequence[FileInfo], channels: int) -> list[Finding]:
    """Report images whose number of bands does not fit the network, except grey and RGB, which are converted."""
    bad = [each for each in files if each.problem is None and {each.bands, channels} not in ({channels}, {1, 3})]
    counts = sorted({each.bands for each in bad})
    advice = "convert the images to the same bands"
    if len(counts) == 1:
        advice = f"train (and check) with network.channels={counts[0]}"
    advice += ", or select bands, such as data.bands=[1, 2, 3]"
    what = f"{counted(len(bad), 'image')} with {short(counts)} bands; the network has {channels} channels"
    details = ({"file": str(each.path), "text": f"{each.path}: {each.words}"} for each in bad)
    return _finding("error", "bands", what, advice, details)


def size_mismatches(items: Sequence[Item], files: Mapping[Path, FileInfo]) -> list[Finding]:
    """Report masks whose size differs from that of their image."""
    details: list[Detail] = []
    swapped = 0
    for item in items:
        if item.mask is None:
            continue
        image, mask = files[item.image].size, files[item.mask].size
        if image is None or mask is None or image == mask:
            continue
        swapped += mask == image[::-1]
        text = f"{item.mask}: is {mask[0]}x{mask[1]} (height x width), its image {item.image} is {image[0]}x{image[1]}"
        details.append({"file": str(item.mask), "image": str(item.image), "sizes": [mask, image], "text": text})
    advice = "save each mask at the size of its image (nearest neighbour, no smoothing), or find the right mask"
    if swapped:
        advice += f"; in {swapped} the sides are swapped, as if the EXIF orientation had been ignored: rotate them"
    what = f"{counted(len(details), 'mask')} of a different size than the image"
    return _finding("error", "size", what, advice, details)


def invalid_masks(items: Sequence[Item], masks: Masks, expected: str, *, colours: bool) -> list[Finding]:
    """Report masks that cannot be decoded or have unmapped values; values unmapped in every mask form one finding."""
    rows = [{"file": str(item.mask), "text": m.problem} for item, m in zip(items, masks, strict=True) if m.problem]
    what = f"{counted(len(rows), 'mask')} with a different encoding"
    findings = _finding("error", "other_form", what, "convert them to the encoding of the other masks", rows)
    kind, keys = ("colours", "colours, ignore_colours") if colours else ("values", "ignore_index, classes")
    common = _in_all_masks([mask for mask in masks if not mask.problem])
    advice = f"declare in dataset.yaml whether it is void or a class ({keys})"
    details = ({"value": value, "text": f"{value}: {text}"} for value, text in common.items())
    what = f"{counted(len(common), kind[:-1])} without a class in all masks"
    findings += _finding("error", "common_values", what, advice, details)
    pairs = zip(items, masks, strict=True)
    bad = [(item, mask) for item, mask in pairs if any(each.value not in common for each in mask.unmapped)]
    advice = f"expected {expected}. If a {kind[:-1]} is void or a class, declare it in dataset.yaml ({keys})"
    advice += "; for lossy or anti-aliased masks, --snap uses the nearest colour" * colours + "; else correct the masks"
    pixels = counted(sum(mask.unmapped_pixels for _, mask in bad), "pixel")
    what = f"{counted(len(bad), 'mask')} with {kind} without a class, in {pixels}"
    return findings + _finding("error", "values", what, advice, (_unmapped(*each) for each in bad))


def _in_all_masks(masks: Masks) -> dict[int | Colour, str]:
    """Return the unmapped values that occur in every mask, with descriptions; none if there is only one mask.

    Colours near a class colour are left out: they are more likely artefacts of compression or smoothing.
    """
    if len(masks) < 2:
        return {}
    unmapped = [{each.value: each for each in mask.unmapped} for mask in masks]
    total = sum(sum(mask.counts) + mask.void + mask.unmapped_pixels for mask in masks)
    line = "; thin lines around the classes, typical of void" * (NO_CLASS in likely_void(masks))
    texts = {}
    for value, first in unmapped[0].items():
        if all(value in each for each in unmapped) and not first.is_near:
            share = 100 * sum(each[value].pixels for each in unmapped) / total
            texts[value] = f"in each of {len(masks)} masks, {share:.2g} % of the pixels{line}"
    return texts


def undeclared_void(names: Sequence[str], masks: Masks, colours: Sequence[Colour] | None) -> list[Finding]:
    """Report classes that are probably void: thin lines around others, or a scattered, unnamed first or last class."""
    details: list[Detail] = []
    unnamed = [index for index in (0, len(names) - 1) if is_generated(names[index])]
    total = max(1, sum(sum(mask.counts) for mask in masks))
    for index in likely_void(masks, unnamed):
        if index != NO_CLASS:
            colour = f", {colours[index]}" if colours is not None else ""
            share = 100 * sum(mask.pixels_of(index) for mask in masks if mask.counts) / total
            text = f"{names[index]} ({index}{colour}): {share:.2g} % of the pixels, scattered between the other classes"
            details.append({"class": names[index], "index": index, "text": text})
    listed = ", ".join(str(detail["class"]) for detail in details)
    advice = f"if it is void, add `ignore: [{listed}]` to dataset.yaml"
    last = len(names) - 1
    if [detail["index"] for detail in details] == [last] and names[last] == f"class_{last}":
        advice += f", or set data.ignore_index={last}"
    what = f"{counted(len(details), 'class')} that may be void but counted as a class"
    return _finding("warning", "outline", what, f"{advice}; if it is a class, name it (classes)", details)


def note_undeclared_void(dataset: DataSet, items: Sequence[Item]) -> list[str]:
    """Return the findings of `undeclared_void` on sampled masks as warnings, if class names are generated."""
    if not is_generated(dataset.classes[-1]):
        return []
    masks, left = [], SAMPLED_PIXELS
    for item in subsample(items, SAMPLED_MASKS):
        left -= math.prod(file_size(mask_of(item)))
        masks += [mask_statistics(item, len(dataset.classes), dataset.ignore_index)] if left >= 0 else []
    findings = undeclared_void(dataset.classes, masks, dataset.colours)
    return [f"warning: {each['text']}: {finding.advice}" for finding in findings for each in finding.details]


def _unmapped(item: Item, mask: MaskStatistics) -> Detail:
    more = mask.unmapped_values - len(mask.unmapped)
    words = "; ".join(each.words() for each in mask.unmapped) + (f"; and {more} more" if more else "")
    values = [{key: getattr(each, key) for key in ("value", "pixels", "row", "column")} for each in mask.unmapped]
    return {"file": str(item.mask), "pixels": mask.unmapped_pixels, "values": values, "text": f"{item.mask}: {words}"}


def void_masks(items: Sequence[Item], masks: Masks) -> list[Finding]:
    """Report training or evaluation masks that are entirely void: an error if all masks are, otherwise a warning."""
    bad = [item for item, mask in zip(items, masks, strict=True) if mask.all_void]
    advice = "annotate them, or delete them (their images are then used without masks): they do not contribute"
    details = ({"file": str(item.mask), "text": f"{item.mask}: every pixel is void"} for item in bad)
    level: Level = "error" if len(bad) == len(items) else "warning"
    return _finding(level, "all_void", f"{counted(len(bad), 'mask')} with only void", advice, details)


def missing_masks(lists: Mapping[str, Sequence[Item]], *, unusable: bool = False) -> list[Finding]:
    """Report validation images without masks, and the absence of training masks.

    unusable: whether training masks exist but are invalid.
    """
    findings: list[Finding] = []
    if not lists.get("labelled") and not unusable:
        advice = "add masks for some images, with the same names, to the mask folder"
        findings.append(Finding("error", "no_masks", "no training image has a mask", advice))
    missing = [item for item in lists.get("val", ()) if item.mask is None]
    advice = "add their masks, or move the images to the unlabelled training images: they are not scored"
    what = f"{counted(len(missing), 'validation image')} without a mask"
    details = ({"file": str(item.image), "text": f"{item.image}: no mask with this name"} for item in missing)
    return findings + _finding("warning", "missing", what, advice, details)


def scarce_classes(names: Sequence[str], training: Masks, evaluation: Masks) -> list[Finding]:
    """Report classes with few or no training pixels."""
    if not training:
        return []
    sums = [sum(mask.counts[index] for mask in training if mask.counts) for index in range(len(names))]
    images = [sum(bool(mask.counts and mask.counts[index]) for mask in training) for index in range(len(names))]
    minimum = max(FEW_PIXELS, FEW_SHARE * sum(sums))
    absent: list[Detail] = []
    rare: list[Detail] = []
    for index, name in enumerate(names):
        value: Detail = {"class": name, "index": index, "pixels": sums[index], "images": images[index]}
        if not sums[index]:
            scored = sum(bool(mask.counts and mask.counts[index]) for mask in evaluation)
            also = f", but in {counted(scored, 'mask')} of validation or test" if scored else ""
            absent.append(value | {"text": f"{name} ({index}): in no training mask{also}"})
        elif sums[index] < minimum or (images[index] == 1 and len(training) >= SEVERAL):
            text = f"{name} ({index}): {counted(sums[index], 'pixel')} in {counted(images[index], 'training mask')}"
            rare.append(value | {"text": text})
    advice = "annotate some, or exclude the class (dataset.yaml: merge, ignore): its IoU would be 0 or undefined"
    what = f"{counted(len(absent), 'class')} without a training pixel"
    findings = _finding("warning", "absent_class", what, advice, absent)
    advice = "annotate more of it, merge it into another class (dataset.yaml: merge), or expect a low IoU"
    return findings + _finding("warning", "rare_class", f"{counted(len(rare), 'class')} with few pixels", advice, rare)


def leakage(equal: Sequence[Group], near: Sequence[Group], masks: Mapping[Path, bytes], grouped: bool) -> list[Finding]:
    """Report evaluation images that are identical or similar to training images, and other duplicates.

    masks: mask digests by image file. grouped: whether data.group is set.
    """
    strong = [group for group in equal if group.between(("labelled",), EVALUATION)]
    weak = [group for group in equal if group.between(("unlabelled",), EVALUATION) and group not in strong]
    rest = [group for group in equal if group not in strong and group not in weak]
    alike = [group for group in near if group.between(TRAINING, EVALUATION)]
    advice = "remove them from one of the lists: a score on training images does not show how a model generalises"
    what = f"{counted(len(strong), 'image')} of validation or test also among the training images with masks"
    findings = _finding("error", "leakage", what, advice, _shown(strong))
    what = f"{counted(len(weak), 'image')} of validation or test also among the images used without masks"
    findings += _finding("warning", "unlabelled_leakage", what, advice, _shown(weak))
    count = sum(len(group.members.get(name, ())) for group in alike for name in EVALUATION)
    what = f"{counted(count, 'image')} of validation or test similar to training images"
    advice = "inspect them: frames of one video or crops of one scan should be in the same split"
    advice += "" if grouped else " (data.group=prefix, folder or a regular expression keeps them together)"
    findings += _finding("warning", "near_leakage", what, advice, _shown(alike))
    differ = sum(len({masks[image.path] for image in group.images if image.path in masks}) > 1 for group in rest)
    advice = "delete the copies: they count twice" + f"; in {differ} the masks differ: keep one" * (differ > 0)
    what = f"{counted(len(rest), 'image')} stored more than once"
    return findings + _finding("warning", "duplicate", what, advice, _shown(rest))


def _shown(groups: Sequence[Group]) -> list[Detail]:
    details = []
    for group in groups:
        files = {name: [str(image.path) for image in members] for name, members in group.members.items()}
        text = "; ".join(f"{name}: {short(paths, 4)}" for name, paths in files.items())
        details.append({"files": files, "text": text})
    return details
