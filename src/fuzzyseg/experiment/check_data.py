"""A data set looked at file by file before anything is trained on it: what it holds, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fuzzyseg.config import Config, ConfigError, DataConfig
from fuzzyseg.data import DataError, DataSet, Item
from fuzzyseg.data.check import Labels, Report, Seen, count_labels, exact_groups, findings, look_at, near_groups
from fuzzyseg.data.check.files import Kind
from fuzzyseg.data.check.findings import HELD, LEARNT, Finding
from fuzzyseg.data.datasets.combine import together, with_unlabelled
from fuzzyseg.data.datasets.read import Place, list_files, locate, understand
from fuzzyseg.data.io.pillow import USUAL_MEGAPIXELS, pixel_limit
from fuzzyseg.data.sample import SPLITS, VOID, Files
from fuzzyseg.data.splits.spec import parse_amount
from fuzzyseg.data.splits.split import make_split
from fuzzyseg.experiment.worker_pool import PATIENCE, Lost, each_apart

Counter = Callable[[int, int], None]
Task = tuple[Path, Kind]
Lists = dict[str, list[Item]]

SLOWEST = 5e6
"""Bytes of a file that are decoded in a second at the least, if the disk is no obstacle."""


def check(config: Config, *, workers: int | None = None, progress: Counter | None = None) -> Report:
    """Opens every image and mask of the data that these settings name. Nothing is written or changed.

    workers: processes that read; None: as many as there are processors. progress: called with (done, total). Raises
    ConfigError, and DataError where nothing can be looked at: no data set is recognised, dataset.yaml is malformed.
    """
    data = config.data
    if data.root is None:
        raise ConfigError("DATA: not given; name the folder with your images")
    description = None if data.description is None else Path(data.description)
    places = [locate(data.root, layout=data.layout, description=description), *map(locate, data.more or ())]
    with pixel_limit(data.max_megapixels):
        return _Check(config, places, workers, progress).report()


@dataclass
class _Opened:
    """The files of all roots as they were found: seen by path, and the data sets' lists without what is unusable."""

    files: list[Files]
    extra: list[Item]
    seen: dict[Path, Seen]

    @property
    def items(self) -> list[Item]:
        """All items of the roots, and the images that were named besides."""
        return [item for files in self.files for items in files.splits.values() for item in items] + self.extra

    def usable(self, item: Item) -> bool:
        """Whether its files were read and fit each other."""
        image = self.seen[item.image]
        mask = None if item.mask is None else self.seen[item.mask]
        return image.problem is None and (mask is None or (mask.problem is None and mask.size == image.size))


class _Check:
    """The steps of one check; each adds to the report and hands on what can still be used."""

    def __init__(self, config: Config, places: Sequence[Place], workers: int | None, progress: Counter | None) -> None:
        self.config, self.data, self.places = config, config.data, places
        self.workers, self.progress = workers, progress
        self.result = Report(str(config.data.root), places[0].layout)
        self.large = 0

    def report(self) -> Report:
        """All steps."""
        try:
            files = [list_files(place) for place in self.places]
        except DataError as error:
            self._add(findings.of_message("structure", "images and masks cannot be brought together", str(error)))
            return self.result
        extra = _extra(self.places[0], files, self.data)
        opened = _Opened(files, extra, {})
        opened.seen = self._open(opened.items)
        self._add(
            *findings.unreadable(list(opened.seen.values())),
            *findings.orphaned(files),
            *self._unfit(opened),
            *findings.mismatched(opened.items, opened.seen),
        )
        dataset, understood = self._understand(opened)
        lists = self._lists(dataset)
        if self.large:
            self.result.found = [*self.result.found, _say_large(self.large, self.data.max_megapixels)]
        self.result.lists = {
            name: (len(items), sum(item.mask is not None for item in items)) for name, items in lists.items() if items
        }
        self._add(*findings.without_masks(lists))
        if understood:
            self._read_masks(dataset, lists)
        self._compare(lists, opened.seen)
        self.result.findings.sort(key=lambda finding: finding.level)  # errors first
        return self.result

    def _add(self, *found: Finding) -> None:
        self.result.findings += found

    def _open(self, items: Sequence[Item]) -> dict[Path, Seen]:
        """Every file once."""
        tasks: dict[Path, Task] = {}
        for item in items:
            tasks.setdefault(item.image, (item.image, "image"))
            if item.mask is not None:
                tasks.setdefault(item.mask, (item.mask, "mask"))
        data = self.data
        # What is resized is needed whole, so that such a file is as much of an obstacle as one that no window reads.
        look = partial(_look, data.max_megapixels, data.image_size is None)
        patience = _patience(tasks)
        results = each_apart(
            look, list(tasks.values()), workers=self.workers, patience=patience, progress=self.progress
        )
        seen = {
            path: result
            if isinstance(result, Seen)
            else Seen(path, f"{path}: the process that reads it {result.reason}; open it in a picture viewer")
            for path, result in zip(tasks, results, strict=True)
        }
        for kind in ("image", "mask"):
            files = [each for path, each in seen.items() if tasks[path][1] == kind]
            self.result.count_files(**{f"{kind}s": files})
        self.large = sum(each.windows for path, each in seen.items() if tasks[path][1] == "image")
        return seen

    def _unfit(self, opened: _Opened) -> list[Finding]:
        if self.data.bands is not None:
            return []
        images = dict.fromkeys(item.image for item in opened.items)
        return findings.unfit([opened.seen[path] for path in images], self.config.network.channels)

    def _understand(self, opened: _Opened) -> tuple[DataSet, bool]:
        """The data set of what can be used; False where it is not known what its masks mean."""
        for files in opened.files:
            files.splits = {name: list(filter(opened.usable, items)) for name, items in files.splits.items()}
        data = self.data
        given: dict[str, Any] = {"classes": data.classes, "ignore_index": data.ignore_index}
        given |= {"encoding": data.encoding, "snap": data.snap}
        try:
            dataset = understand(self.places[0], opened.files[0], **given)
            rest = zip(self.places[1:], opened.files[1:], strict=True)
            others = [understand(place, files, otherwise=dataset.meaning, **given) for place, files in rest]
            dataset, understood = together(dataset, others) if others else dataset, True
        except DataError as error:
            self._add(findings.of_message("not_understood", "it cannot be told what the masks mean", str(error)))
            dataset, understood = _shell(self.places[0], opened.files), False
        if data.unlabelled_from:
            dataset = with_unlabelled(dataset, data.unlabelled_from)
            bad = {path for path, each in opened.seen.items() if each.problem is not None}
            dataset = replace(dataset, train=[item for item in dataset.train if item.image not in bad])
        self.result.found = dataset.found
        return dataset, understood

    def _lists(self, dataset: DataSet) -> Lists:
        """What each image is for, as training with these settings would have it; every mask may be a labelled one.

        A list of labelled images is followed; of a number it does not matter here which ones are chosen.
        """
        data = self.data
        seed = self.config.seed if data.split_seed is None else data.split_seed
        masks = sum(item.mask is not None for item in dataset.train)
        try:
            what = "training images with masks"
            amount = None if data.labelled is None else parse_amount(data.labelled, masks, what, option="--labelled")
            listed = data.labelled if isinstance(amount, Path) else None
            split = make_split(dataset, labelled=listed, val=data.val, seed=seed, policy="random", group=data.group)
        except DataError as error:
            if any(item.mask is not None for item in dataset.train):
                self._add(findings.of_message("split", "the images cannot be split as asked for", str(error)))
            train = dataset.train
            return {
                "labelled": [item for item in train if item.mask is not None],
                "unlabelled": [item for item in train if item.mask is None],
                "val": dataset.val or [],
                "test": dataset.test or [],
            }
        self.result.found = [*self.result.found, *split.sentences]
        if amount is not None and listed is None:
            chosen = "training chooses which images these are; here all masks are looked at"
            self.result.found.append(f"--labelled {data.labelled}: {chosen}")
        bare = [item for item in dataset.val or [] if item.mask is None] if data.val in (None, "val") else []
        held = {item.image for item in split.val}
        tests = [item for item in dataset.test or [] if item.image not in held]
        return {"labelled": split.labelled, "unlabelled": split.unlabelled, "val": split.val + bare, "test": tests}

    def _read_masks(self, dataset: DataSet, lists: Lists) -> None:
        """What the masks hold, by class."""
        sides = [[item for name in names for item in lists[name] if item.mask is not None] for names in (LEARNT, HELD)]
        items = sides[0] + sides[1]
        count = partial(_count, len(dataset.classes), dataset.ignore_index, self.data.max_megapixels)
        patience = _patience([item.mask for item in items if item.mask is not None])
        results = each_apart(count, items, workers=self.workers, patience=patience, progress=self.progress)
        labels = [
            Labels(problem=f"{item.mask}: the process that reads it {result.reason}")
            if isinstance(result, Lost)
            else result
            for item, result in zip(items, results, strict=True)
        ]
        learnt, held = labels[: len(sides[0])], labels[len(sides[0]) :]
        self.result.count_labels(dataset.classes, learnt, held)
        encoding = dataset.encoding
        expected = encoding.text if encoding is not None and encoding.text else f"0 to {len(dataset.classes) - 1}"
        void = dataset.ignore_index if dataset.ignore_index == VOID else f"{dataset.ignore_index} or {VOID}"
        coloured = encoding is not None and encoding.colours is not None
        if not coloured:
            expected += f", or {void} for void"
        self._add(
            *findings.out_of_range(items, labels, expected, colours=coloured),
            *findings.empty_masks(items, labels),
            *findings.scarce(dataset.classes, learnt, held),
        )
        snapped = sum(each.snapped for each in labels)
        if snapped:
            self.result.found.append(f"--snap: {snapped} pixels are taken for the nearest colour")

    def _compare(self, lists: Lists, seen: dict[Path, Seen]) -> None:
        """Images that are there twice, or on both sides."""
        images = {name: [seen[item.image] for item in items] for name, items in lists.items()}
        masks = {
            item.image: seen[item.mask].digest for items in lists.values() for item in items if item.mask is not None
        }
        equal, near = exact_groups(images), near_groups(images, LEARNT, HELD)
        self._add(*findings.leaks(equal, near, masks, grouped=self.data.group is not None))


def _look(megapixels: int | None, windows: bool, task: Task) -> Seen:
    with pixel_limit(megapixels):
        return look_at(*task, windows=windows)


def _patience(files: Iterable[Path]) -> float:
    """Seconds for one file: more where one is so large that its decoding alone takes minutes."""
    most = max((path.stat().st_size for path in files if path.is_file()), default=0)
    return PATIENCE + most / SLOWEST


def _say_large(count: int, megapixels: int | None) -> str:
    what = "image is" if count == 1 else "images are"
    most = USUAL_MEGAPIXELS if megapixels is None else megapixels
    return f"{count} {what} larger than {most} million pixels: read by windows, in prediction and training"


def _count(classes: int, ignore_index: int, megapixels: int | None, item: Item) -> Labels:
    with pixel_limit(megapixels):
        return count_labels(item, classes, ignore_index)


def _shell(place: Place, files: Sequence[Files]) -> DataSet:
    """The lists of several roots as a data set of which no mask is understood."""
    lists = {name: [item for each in files for item in each.splits.get(name, [])] for name in SPLITS}
    found = [f"layout {place.layout}", *(sentence for each in files for sentence in each.found)]
    return DataSet(
        place.folder, place.layout, [], VOID, lists["train"], lists["val"] or None, lists["test"] or None, found=found
    )


def _extra(place: Place, files: Sequence[Files], data: DataConfig) -> list[Item]:
    """The images that `--unlabelled` names besides those of the roots. Raises DataError where it names none."""
    shell = _shell(place, files)
    if not data.unlabelled_from:
        return []
    return with_unlabelled(shell, data.unlabelled_from).train[len(shell.train) :]
