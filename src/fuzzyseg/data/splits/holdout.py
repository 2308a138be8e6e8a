"""Labelled images that are not trained on, so that a setting can be chosen on them and validation stays untouched."""

from __future__ import annotations

from dataclasses import replace

from fuzzyseg.data.labels.class_counts import presence
from fuzzyseg.data.sample import DataError, DataSet, Item
from fuzzyseg.data.splits.split import Split, without_mask


def hold_back(split: Split, dataset: DataSet, count: int) -> tuple[Split, list[Item]]:
    """The split with its last `count` labelled images used without masks, and these images with their masks.

    The last ones, because the first cover the classes. Raises DataError unless at least one labelled image is left.
    """
    if not 0 < count < len(split.labelled):
        raise DataError(
            f"{dataset.root}: {count} of {len(split.labelled)} labelled images cannot be held back; expected at least "
            "one that is held back and one that is trained on"
        )
    kept, held = split.labelled[:-count], split.labelled[-count:]
    names = {item.name for item in held}
    bare = names | {item.name for item in split.unlabelled}
    uncovered, sentences = split.uncovered, []
    if split.policy != "random":
        present = presence(kept, classes=len(dataset.classes), ignore_index=dataset.ignore_index)
        uncovered = [name for index, name in enumerate(dataset.classes) if not present[:, index].any()]
        lost = [name for name in uncovered if name not in split.uncovered]
        sentences = [f"in no labelled image that is trained on: {', '.join(lost)}"] if lost else []
    said = f"{count} of the {len(split.labelled)} labelled images are held back, and used without masks"
    left = replace(
        split,
        labelled=kept,
        unlabelled=without_mask([item for item in split.all_ if item.name in bare]),
        all_=[replace(item, mask=None) if item.name in names else item for item in split.all_],
        uncovered=uncovered,
        sentences=[*split.sentences, said, *sentences],
    )
    return left, held
