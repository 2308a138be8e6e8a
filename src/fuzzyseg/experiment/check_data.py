"""Checks of every file of a dataset before training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fuzzyseg.config import Config, ConfigError, DataConfig
from fuzzyseg.data import DataError, DataSet, Item
from fuzzyseg.data.check import findings
from fuzzyseg.data.check.duplicates import exact_duplicates, near_duplicates
from fuzzyseg.data.check.files import KINDS, FileInfo
from fuzzyseg.data.check.findings import EVALUATION, TRAINING, Finding
from fuzzyseg.data.check.report import Report
from fuzzyseg.data.check.sheet import check_sheet, save_sheet
from fuzzyseg.data.datasets.combine import add_unlabelled, merge_datasets
from fuzzyseg.data.datasets.read import DatasetLocation, build_dataset, list_files, locate
from fuzzyseg.data.io.pillow import USUAL_MEGAPIXELS, pixel_limit
from fuzzyseg.data.labels.declared import LabelOptions
from fuzzyseg.data.sample import SPLITS, VOID, Files
from fuzzyseg.data.splits.spec import parse_amount
from fuzzyseg.data.splits.split import make_split
from fuzzyseg.experiment.check_files import Counter, Examiner
from fuzzyseg.experiment.prepare_data import value_notes

Lists = dict[str, list[Item]]


def check(
    config: Config, *, workers: int | None = None, progress: Counter | None = None, sheet: Path | None = None
) -> Report:
    """Decode every image and mask of the configured data, and report problems. Writes no file except the sheet.

    workers: number of worker processes. Default: one per processor. progress: called with (done, total). sheet: image
    file for the contact sheet of the classes. Raises ConfigError, and DataError if no dataset is recognised,
    dataset.yaml is invalid, or the sheet cannot be written.
    """
    data = config.data
    if data.root is None:
        raise ConfigError("DATA: not given; name the folder with your images")
    description = None if data.description is None else Path(data.description)
    locations = [locate(data.root, layout=data.layout, description=description), *map(locate, data.more or ())]
    with pixel_limit(data.max_megapixels):
        return _Check(config, locations, Examiner(data, workers, progress), sheet).report()


@dataclass
class _Inspected:
    """Files of each root, additional unlabelled images, and the inspection result of each file."""

    files: list[Files]
    extra: list[Item]
    results: dict[Path, FileInfo]

    @property
    def items(self) -> list[Item]:
        """All items of all roots."""
        return [item for files in self.files for items in files.splits.values() for item in items] + self.extra

    def usable(self, item: Item) -> bool:
        """Whether image and mask are readable and have the same size."""
        image = self.results[item.image]
        mask = None if item.mask is None else self.results[item.mask]
        return image.problem is None and (mask is None or (mask.problem is None and mask.size == image.size))


@dataclass
class _Check:
    """The steps of a check. Each adds findings; later steps use only the readable files."""

    config: Config
    locations: Sequence[DatasetLocation]
    examiner: Examiner
    sheet: Path | None
    lost_masks: bool = False

    def __post_init__(self) -> None:
        self.data = self.config.data
        self.result = Report(str(self.data.root), self.locations[0].layout)

    def report(self) -> Report:
        """Run all steps and return the report."""
        try:
            files = [list_files(location) for location in self.locations]
        except DataError as error:
            self._add(findings.from_message("structure", "images and masks cannot be paired", str(error)))
            return self.result
        inspected = _Inspected(files, _extra(self.locations[0], files, self.data), {})
        if self.sheet is not None:
            check_sheet(self.sheet, inspected.items)
        examined = self.examiner.inspect(inspected.items)
        inspected.results = {path: result for path, (_, result) in examined.items()}
        self.result.count_files(*([each for of, each in examined.values() if of == kind] for kind in KINDS))
        self._add(
            *findings.unreadable_files(list(inspected.results.values())),
            *findings.unmatched_masks(files),
            *self._band_mismatches(inspected),
            *findings.size_mismatches(inspected.items, inspected.results),
        )
        dataset, resolved = self._resolve(inspected)
        lists = self._lists(dataset, resolved)
        large = sum(inspected.results[path].windows for path in {item.image for item in inspected.items})
        if large:
            self.result.notes.append(_large_note(large, self.data.max_megapixels))
        non_empty = {name: items for name, items in lists.items() if items}
        self.result.lists = {name: (len(i), sum(item.mask is not None for item in i)) for name, i in non_empty.items()}
        training = [*lists.get("labelled", ()), *lists.get("unlabelled", ())]
        kind = self.data, self.config.network.channels, self.config.init or ()
        self.result.notes += value_notes(*kind, training, list(lists.get("val", ())))[0]
        self._add(*findings.missing_masks(lists, unusable=self.lost_masks))
        if resolved:
            self._check_masks(dataset, lists)
        self._find_duplicates(lists, inspected.results)
        self.result.findings.sort(key=lambda finding: finding.level)  # errors first
        return self.result

    def _add(self, *new_findings: Finding) -> None:
        self.result.findings += new_findings

    def _band_mismatches(self, inspected: _Inspected) -> list[Finding]:
        if self.data.bands is not None:
            return []
        images = dict.fromkeys(item.image for item in inspected.items)
        return findings.band_mismatches([inspected.results[path] for path in images], self.config.network.channels)

    def _resolve(self, inspected: _Inspected) -> tuple[DataSet, bool]:
        """Build the dataset from the usable files. Also returns whether its labels could be resolved."""
        unusable = any(item.mask is not None and not inspected.usable(item) for item in inspected.items)
        self.lost_masks = unusable or any(files.unmatched_masks for files in inspected.files)
        for files in inspected.files:
            files.splits = {name: list(filter(inspected.usable, items)) for name, items in files.splits.items()}
        data = self.data
        if self.lost_masks and not any(item.mask is not None for item in inspected.items):
            return _without_labels(self.locations[0], inspected.files), False  # the findings so far explain why
        options: LabelOptions = {"classes": data.classes, "ignore_index": data.ignore_index}
        options |= {"encoding": data.encoding, "snap": data.snap}
        try:
            dataset = build_dataset(self.locations[0], inspected.files[0], **options)
            options["fallback"] = dataset.label_map
            rest = zip(self.locations[1:], inspected.files[1:], strict=True)
            others = [build_dataset(where, files, **options) for where, files in rest]
            dataset, resolved = merge_datasets(dataset, others) if others else dataset, True
        except DataError as error:
            self._add(findings.from_message("not_understood", "the labels of the masks are unclear", str(error)))
            dataset, resolved = _without_labels(self.locations[0], inspected.files), False
        if data.unlabelled_from:
            dataset = add_unlabelled(dataset, data.unlabelled_from)
            bad = {path for path, each in inspected.results.items() if each.problem is not None}
            dataset = replace(dataset, train=[item for item in dataset.train if item.image not in bad])
        self.result.notes = list(dataset.notes)
        return dataset, resolved

    def _lists(self, dataset: DataSet, resolved: bool) -> Lists:
        """Return the image lists for training. All images with masks count as labelled unless a list is given.

        resolved: whether the classes are known, which is needed to select the same held-out images as training.
        """
        data = self.data
        seed = self.config.seed if data.split_seed is None else data.split_seed
        masks = sum(item.mask is not None for item in dataset.train)
        try:
            what = "training images with masks"
            amount = None if data.labelled is None else parse_amount(data.labelled, masks, what, option="--labelled")
            listed = data.labelled if isinstance(amount, Path) else None
            split = make_split(
                dataset,
                labelled=listed,
                val=data.val,
                seed=seed,
                policy=data.policy if resolved else "random",
                group=data.group,
                presence=partial(self.examiner.presence, dataset),
            )
        except DataError as error:
            if masks:
                self._add(findings.from_message("split", "the images cannot be split as configured", str(error)))
            return {
                "labelled": [item for item in dataset.train if item.mask is not None],
                "unlabelled": [item for item in dataset.train if item.mask is None],
                "val": dataset.val or [],
                "test": dataset.test or [],
            }
        self.result.notes += split.notes
        if split.held_out and split.val and not resolved and data.policy == "cover":
            self.result.notes.append("training may hold out other images for validation, based on their classes")
        if amount is not None and listed is None:
            self.result.notes.append(f"--labelled {data.labelled}: training selects the images; all masks are checked")
        gaps = [item for item in dataset.val or [] if item.mask is None] if data.val in (None, "val") else []
        val_images = {item.image for item in split.val}
        tests = [item for item in dataset.test or [] if item.image not in val_images]
        return {"labelled": split.labelled, "unlabelled": split.unlabelled, "val": split.val + gaps, "test": tests}

    def _check_masks(self, dataset: DataSet, lists: Lists) -> None:
        """Decode the masks and check their values."""
        both = ([item for name in names for item in lists[name]] for names in (TRAINING, EVALUATION))
        training, evaluation = ([item for item in items if item.mask is not None] for items in both)
        items = training + evaluation
        masks = self.examiner.statistics(dataset, items)
        sides = masks[: len(training)], masks[len(training) :]
        self.result.count_masks(dataset.classes, *sides)
        encoding = dataset.encoding
        expected = encoding.text if encoding is not None and encoding.text else f"0 to {len(dataset.classes) - 1}"
        coloured = encoding is not None and encoding.colours is not None
        if not coloured:
            void = dataset.ignore_index if dataset.ignore_index == VOID else f"{dataset.ignore_index} or {VOID}"
            expected += f", or {void} for void"
        self._add(
            *findings.invalid_masks(items, masks, expected, colours=coloured),
            *findings.void_masks(training, sides[0]),
            *findings.void_masks(evaluation, sides[1]),
            *findings.scarce_classes(dataset.classes, *sides),
            *findings.undeclared_void(dataset.classes, masks, dataset.colours),
        )
        snapped = sum(each.snapped for each in masks)
        self.result.notes += [f"--snap: {snapped} pixels are assigned to the nearest colour"] * bool(snapped)
        if self.sheet is not None and items:
            save_sheet(self.sheet, dataset, items, masks)
            self.result.notes.append(f"contact sheet of the classes: {self.sheet}")

    def _find_duplicates(self, lists: Lists, results: dict[Path, FileInfo]) -> None:
        """Find duplicate images, and images in both training and evaluation lists."""
        images = {name: [results[item.image] for item in items] for name, items in lists.items()}
        all_items = [item for items in lists.values() for item in items]
        masks = {item.image: results[item.mask].digest for item in all_items if item.mask is not None}
        equal, near = exact_duplicates(images), near_duplicates(images, TRAINING, EVALUATION)
        self._add(*findings.leakage(equal, near, masks, grouped=self.data.group is not None))


def _large_note(count: int, megapixels: int | None) -> str:
    what = "image is" if count == 1 else "images are"
    limit = USUAL_MEGAPIXELS if megapixels is None else megapixels
    return f"{count} {what} larger than {limit} million pixels: read in windows, in prediction and training"


def _without_labels(location: DatasetLocation, files: Sequence[Files]) -> DataSet:
    """Return the images of all roots as a dataset without classes."""
    lists = {name: [item for each in files for item in each.splits.get(name, [])] for name in SPLITS}
    notes = [f"layout {location.layout}", *(note for each in files for note in each.notes)]
    val, test = lists["val"] or None, lists["test"] or None
    return DataSet(location.folder, location.layout, [], VOID, lists["train"], val, test, notes=notes)


def _extra(location: DatasetLocation, files: Sequence[Files], data: DataConfig) -> list[Item]:
    """Return the images of `--unlabelled`. Raises DataError if there are none."""
    if not data.unlabelled_from:
        return []
    dataset = _without_labels(location, files)
    return add_unlabelled(dataset, data.unlabelled_from).train[len(dataset.train) :]
