"""What was seen becomes findings: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fuzzyseg.data.check.duplicates import Group
from fuzzyseg.data.check.files import Seen
from fuzzyseg.data.check.labels import Labels
from fuzzyseg.data.datasets.pairing import likely_image
from fuzzyseg.data.sample import Files, Item
from fuzzyseg.data.text import counted, short

LEARNT, HELD = ("labelled", "unlabelled"), ("val", "test")
"""The lists that are trained on, and those that are scored."""

FEW_PIXELS, FEW_SHARE, SEVERAL = 100, 1e-4, 10
"""A class is rare with fewer pixels, or a smaller share of them, or in one of that many masks or more."""

Detail = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """An error (training would refuse the data, or its score would mean nothing) or a warning.

    kind: one word for programs. what: a sentence. advice: what to do. details: one entry a file or group, each with
    `text`, and with `file` or other values for programs.
    """

    level: Literal["error", "warning"]
    kind: str
    what: str
    advice: str
    details: tuple[Detail, ...] = ()

    def record(self) -> dict[str, Any]:
        """As what JSON holds."""
        about = {"level": self.level, "kind": self.kind, "what": self.what, "advice": self.advice}
        return {**about, "count": len(self.details), "details": list(self.details)}


def of_message(kind: str, what: str, message: str) -> Finding:
    """An error that says itself what to do, such as a DataError."""
    return Finding("error", kind, what, "mend what is named, then check again", ({"text": message},))


def unreadable(seen: Sequence[Seen]) -> list[Finding]:
    """Files that could not be opened or decoded."""
    bad = [each for each in seen if each.problem is not None]
    if not bad:
        return []
    return [
        Finding(
            "error",
            "unreadable",
            f"{_files(len(bad))} cannot be read",
            "copy them again from their source, or delete them (a mask together with its image, or the mask alone: "
            "then the image is used without)",
            tuple({"file": str(each.path), "text": each.problem} for each in bad),
        )
    ]


def orphaned(lists: Sequence[Files], most: int = 20) -> list[Finding]:
    """Masks without an image; for the first `most` the image that is probably meant."""
    bad = [(path, files) for files in lists for path in files.orphans]
    if not bad:
        return []
    details: list[Detail] = []
    for place, (path, files) in enumerate(bad):
        likely = likely_image(path, files) if place < most else ""  # takes long where there are many names
        details.append({"file": str(path), "text": f"{path}: no image of this name.{likely}"})
    advice = "rename each mask like its image, copy the image there, or delete the mask"
    return [Finding("error", "orphaned", f"{counted(len(bad), 'mask')} without an image", advice, tuple(details))]


def unfit(seen: Sequence[Seen], channels: int) -> list[Finding]:
    """Images whose bands are not those that the network takes. Grey serves for RGB, and RGB for grey."""
    bad = [each for each in seen if each.problem is None and {each.bands, channels} not in ({channels}, {1, 3})]
    if not bad:
        return []
    counts = sorted({each.bands for each in bad})
    advice = (
        f"train (and check) with network.channels={counts[0]}"
        if len(counts) == 1
        else "bring the images to the same bands"
    ) + ", or name the bands to use, such as data.bands=[1, 2, 3]"
    details = tuple({"file": str(each.path), "text": f"{each.path}: {each.words}"} for each in bad)
    what = f"{counted(len(bad), 'image')} of {short(counts)} bands; the network is to have {channels} channels"
    return [Finding("error", "bands", what, advice, details)]


def mismatched(items: Sequence[Item], seen: Mapping[Path, Seen]) -> list[Finding]:
    """Masks that have not the size of their image."""
    details: list[Detail] = []
    swapped = 0
    for item in items:
        if item.mask is None:
            continue
        image, mask = seen[item.image].size, seen[item.mask].size
        if image is None or mask is None or image == mask:
            continue
        swapped += mask == image[::-1]
        text = f"{item.mask}: is {mask[0]}x{mask[1]} (height x width), its image {item.image} is {image[0]}x{image[1]}"
        details.append({"file": str(item.mask), "image": str(item.image), "sizes": [mask, image], "text": text})
    if not details:
        return []
    advice = "save each mask at its image's size (nearest neighbour, never smoothed), or find the mask that belongs"
    if swapped:
        advice += (
            f"; in {swapped} the sides are swapped, as when a mask was drawn without the image's EXIF orientation: "
            "rotate it"
        )
    what = f"{counted(len(details), 'mask')} of another size than the image"
    return [Finding("error", "size", what, advice, tuple(details))]


def out_of_range(items: Sequence[Item], labels: Sequence[Labels], expected: str, *, colours: bool) -> list[Finding]:
    """Masks with values that mean nothing, and masks that cannot be understood at all."""
    findings: list[Finding] = []
    lost = [(item, found.problem) for item, found in zip(items, labels, strict=True) if found.problem]
    if lost:
        details: tuple[Detail, ...] = tuple({"file": str(item.mask), "text": problem} for item, problem in lost)
        advice = "bring them into the form of the other masks"
        findings.append(
            Finding("error", "other_form", f"{counted(len(lost), 'mask')} of another form", advice, details)
        )
    bad = [(item, found) for item, found in zip(items, labels, strict=True) if found.strange_pixels]
    if bad:
        pixels = sum(found.strange_pixels for _, found in bad)
        kind = "colours" if colours else "values"
        advice = (
            f"expected {expected}. If a {kind[:-1]} is void or a class, say so in dataset.yaml"
            + (" (colours, ignore_colours)" if colours else " (ignore_index, classes)")
            + ("; if files were stored with loss or drawn with smooth edges, --snap takes the nearest" * colours)
            + "; else mend the masks"
        )
        what = f"{counted(len(bad), 'mask')} with {kind} that mean nothing, in {counted(pixels, 'pixel')}"
        findings.append(Finding("error", "values", what, advice, tuple(_strange(*each) for each in bad)))
    return findings


def _strange(item: Item, found: Labels) -> Detail:
    more = found.strange_values - len(found.strange)
    words = "; ".join(each.words() for each in found.strange) + (f"; and {more} more" if more else "")
    values = [
        {"value": each.value, "pixels": each.pixels, "row": each.row, "column": each.column} for each in found.strange
    ]
    return {"file": str(item.mask), "pixels": found.strange_pixels, "values": values, "text": f"{item.mask}: {words}"}


def empty_masks(items: Sequence[Item], labels: Sequence[Labels]) -> list[Finding]:
    """Masks in which every pixel is void."""
    bad = [item for item, found in zip(items, labels, strict=True) if found.all_void]
    if not bad:
        return []
    return [
        Finding(
            "warning",
            "all_void",
            f"{counted(len(bad), 'mask')} of nothing but void",
            "nothing is learnt from them: delete them (then their images are used without masks), or annotate them",
            tuple({"file": str(item.mask), "text": f"{item.mask}: every pixel is void"} for item in bad),
        )
    ]


def without_masks(lists: Mapping[str, Sequence[Item]]) -> list[Finding]:
    """Validation images that have no mask, and the lack of any mask to learn from."""
    findings: list[Finding] = []
    if not lists.get("labelled"):
        advice = "put masks of the same names into the folder of masks, for some of the images at least"
        findings.append(Finding("error", "no_masks", "no training image has a mask", advice))
    bare = [item for item in lists.get("val", ()) if item.mask is None]
    if bare:
        findings.append(
            Finding(
                "warning",
                "missing",
                f"{counted(len(bare), 'validation image')} without a mask",
                "they are not scored: add their masks, or move them to the training images (used without masks there)",
                tuple({"file": str(item.image), "text": f"{item.image}: no mask of this name"} for item in bare),
            )
        )
    return findings


def scarce(names: Sequence[str], learnt: Sequence[Labels], held: Sequence[Labels]) -> list[Finding]:
    """Classes that no training mask holds, or hardly any."""
    if not learnt:
        return []
    sums = [sum(found.counts[index] for found in learnt if found.counts) for index in range(len(names))]
    images = [sum(bool(found.counts and found.counts[index]) for found in learnt) for index in range(len(names))]
    everything = max(1, sum(sums))
    absent: list[Detail] = []
    rare: list[Detail] = []
    for index, name in enumerate(names):
        value: Detail = {"class": name, "index": index, "pixels": sums[index], "images": images[index]}
        if not sums[index]:
            scored = sum(bool(found.counts and found.counts[index]) for found in held)
            also = f", but {counted(scored, 'mask')} of validation or test" if scored else ""
            absent.append(value | {"text": f"{name} ({index}): in no training mask{also}"})
        elif (
            sums[index] < FEW_PIXELS
            or sums[index] < FEW_SHARE * everything
            or (images[index] == 1 and len(learnt) >= SEVERAL)
        ):
            text = f"{name} ({index}): {counted(sums[index], 'pixel')} in {counted(images[index], 'training mask')}"
            rare.append(value | {"text": text})
    findings: list[Finding] = []
    if absent:
        advice = "annotate some, or leave the class out (dataset.yaml: merge, ignore): its IoU would be 0 or undefined"
        what = f"{counted(len(absent), 'class')} without a training pixel"
        findings.append(Finding("warning", "absent_class", what, advice, tuple(absent)))
    if rare:
        advice = "annotate more of it, merge it into another class (dataset.yaml: merge), or expect a low IoU of it"
        findings.append(
            Finding("warning", "rare_class", f"{counted(len(rare), 'class')} with few pixels", advice, tuple(rare))
        )
    return findings


def leaks(equal: Sequence[Group], near: Sequence[Group], masks: Mapping[Path, bytes], grouped: bool) -> list[Finding]:
    """Images that are learnt from and scored on; images that are there twice.

    masks: the digest of the mask of an image file, where there is one. grouped: images are held out by group already.
    """
    findings: list[Finding] = []
    advice = "remove them from one of the lists: a score on images that were learnt from says nothing about new ones"
    strong = [group for group in equal if group.between(("labelled",), HELD)]
    weak = [group for group in equal if group.between(("unlabelled",), HELD) and group not in strong]
    for level, kind, groups, source in (
        ("error", "leakage", strong, "training images with masks"),
        ("warning", "unlabelled_leakage", weak, "images that are used without masks"),
    ):
        if groups:
            what = f"{counted(len(groups), 'image')} of validation or test also among the {source}"
            findings.append(Finding("error" if level == "error" else "warning", kind, what, advice, _shown(groups)))
    alike = [group for group in near if group.between(LEARNT, HELD)]
    if alike:
        held = sum(len(group.members.get(name, ())) for group in alike for name in HELD)
        what = f"{counted(held, 'image')} of validation or test that look like training images"
        hint = "look at them: frames of one video or cuts of one scan should be on one side"
        hint += "" if grouped else " (data.group=prefix, folder or a regular expression keeps them together)"
        findings.append(Finding("warning", "near_leakage", what, hint, _shown(alike)))
    rest = [group for group in equal if group not in strong and group not in weak]
    if rest:
        differ = sum(len({masks[image.path] for image in _all(group) if image.path in masks}) > 1 for group in rest)
        hint = "delete the copies: they count twice" + (
            f"; in {differ} the masks differ: find out which one is right" if differ else ""
        )
        what = f"{counted(len(rest), 'image')} stored more than once"
        findings.append(Finding("warning", "duplicate", what, hint, _shown(rest)))
    return findings


def _all(group: Group) -> list[Seen]:
    return [image for members in group.members.values() for image in members]


def _shown(groups: Sequence[Group]) -> tuple[Detail, ...]:
    details = []
    for group in groups:
        files = {name: [str(image.path) for image in members] for name, members in group.members.items()}
        text = "; ".join(f"{name}: {short(paths, 4)}" for name, paths in files.items())
        details.append({"files": files, "text": text})
    return tuple(details)


def _files(count: int) -> str:
    return counted(count, "file")
