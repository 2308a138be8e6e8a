"""The `merge` and `ignore` keys of `dataset.yaml`, which merge classes or make them void."""

from fuzzyseg.data.dataset_yaml import FILE, Description
from fuzzyseg.data.labels.decode import remap_classes
from fuzzyseg.data.sample import VOID, DataError, LabelMap
from fuzzyseg.data.text import nearest


def merged(description: Description, labels: LabelMap) -> tuple[LabelMap, list[int] | None]:
    """Return the label map after `merge` and `ignore`, and the new index of each old class (None: unchanged)."""
    if not description.merge and not description.ignore:
        return labels, None
    merge, ignored = description.merge or {}, description.ignore or []
    for key, names in {**{f"merge.{new}": parts for new, parts in merge.items()}, "ignore": ignored}.items():
        if unknown := [name for name in names if name not in labels.classes]:
            raise DataError(f"{FILE}: {key}: found no class {unknown[0]!r}.{nearest(unknown[0], labels.classes)}")
    target = {name: name for name in labels.classes} | {part: new for new, parts in merge.items() for part in parts}
    names = list(dict.fromkeys(target[name] for name in labels.classes if name not in ignored))
    order = [VOID if name in ignored else names.index(target[name]) for name in labels.classes]
    if len(names) < 2:
        raise DataError(f"{FILE}: merge and ignore leave {len(names)} class; expected 2 or more")
    colours = labels.colours and [labels.colours[order.index(index)] for index in range(len(names))]
    changes = [f"{new} of {', '.join(parts)}" for new, parts in merge.items()]
    changes += [f"ignored: {', '.join(sorted(ignored))}"] * bool(ignored)
    text = f"{len(labels.classes)} classes of the files become {len(names)}: {'; '.join(changes)}"
    before = f"{labels.encoding.text}; " if labels.encoding is not None else ""
    encoding = remap_classes(labels.encoding, labels.ignore_index, order, before + text)
    return LabelMap(names, labels.ignore_index, encoding, colours), order
