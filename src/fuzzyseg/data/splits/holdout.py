"""Hold-out set of labelled images, for tuning settings without the validation images."""

from collections.abc import Collection
from dataclasses import replace

from fuzzyseg.data.labels.class_counts import class_presence
from fuzzyseg.data.sample import DataError, DataSet, Item
from fuzzyseg.data.splits.groups import Groups
from fuzzyseg.data.splits.split import Split, without_mask


def hold_out(
    split: Split, dataset: DataSet, count: int, group: str | None = None, names: Collection[str] = ()
) -> tuple[Split, list[Item]]:
    """Make the last `count` labelled images unlabelled. Returns the new split, and these images with their masks.

    The first labelled images cover the classes, so the last ones are held out. With `group` (see `group_keys`), these
    are the last whole groups that contain at least `count` images in total, or all groups but the first. names: images
    to hold out instead, such as those of a resumed run. Raises DataError unless both parts contain images.
    """
    places = {n for n, item in enumerate(split.labelled) if item.name in names}
    if not places:
        groups = Groups(split.labelled, group)
        if not 0 < count < len(split.labelled) or len(groups.members) < 2:
            what = "image" if group is None else f"group ({group})"
            raise DataError(
                f"{dataset.root}: {count} of {len(split.labelled)} labelled images cannot be held out; expected at "
                f"least one held-out and one training {what}"
            )
        places = set(groups.first(range(len(groups.members))[:0:-1], count))
    kept, held_out = ([x for n, x in enumerate(split.labelled) if (n in places) == out] for out in (False, True))
    names = {item.name for item in held_out}
    unlabelled = names | {item.name for item in split.unlabelled}
    uncovered, notes = split.uncovered, []
    if split.policy != "random":
        present = class_presence(kept, classes=len(dataset.classes), ignore_index=dataset.ignore_index)
        uncovered = [name for index, name in enumerate(dataset.classes) if not present[:, index].any()]
        newly_uncovered = [name for name in uncovered if name not in split.uncovered]
        notes = [f"in no labelled training image: {', '.join(newly_uncovered)}"] if newly_uncovered else []
    note = f"{len(held_out)} of the {len(split.labelled)} labelled images are held out and used without masks"
    left = replace(
        split,
        labelled=kept,
        unlabelled=without_mask([item for item in split.all_ if item.name in unlabelled]),
        all_=[replace(item, mask=None) if item.name in names else item for item in split.all_],
        uncovered=uncovered,
        notes=[*split.notes, note, *notes],
    )
    return left, held_out
