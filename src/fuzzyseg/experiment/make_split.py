"""Export of splits as list files."""

import json
from contextlib import suppress
from pathlib import Path

from fuzzyseg.config import Config, ConfigError
from fuzzyseg.data.datasets.tables import quoted
from fuzzyseg.data.io.write import Unwritable
from fuzzyseg.data.splits.split import Split
from fuzzyseg.experiment.prepare_data import read_configured, split_for
from fuzzyseg.run.files import write_text

LISTS = ("labelled", "unlabelled", "val")


def write_split(config: Config, out: str | Path) -> tuple[Split, list[str]]:
    """Compute the split of a run with these settings, and write it to the folder `out`.

    labelled.txt, unlabelled.txt and val.txt list one name per line in the order of selection, for `--labelled` and
    `--val`; split.json also records policy, seed and hash. Returns the split and notes. Raises ConfigError if the
    folder contains a different split.
    """
    data = config.data
    if data.root is None:
        raise ConfigError("DATA: not given; name the folder with your images")
    dataset = read_configured(data)
    split = split_for(data, config.seed, dataset)
    record = {**split.record(), "group": data.group}
    texts = {"split.json": json.dumps(record, indent=2, ensure_ascii=False) + "\n"}
    for part in LISTS:
        head = f"# {part} images of split {split.hash} (policy {split.policy}, seed {split.seed})\n"
        texts[f"{part}.txt"] = head + "".join(f"{quoted(item.name)}\n" for item in getattr(split, part))
    folder = Path(out)
    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_bytes() != text.encode("utf-8", "backslashreplace"):
            raise ConfigError(f"{path}: contains another split; choose another --out, or remove it")
    fresh = [path for path in (folder, *folder.parents) if not path.exists()]
    new = [folder / name for name in texts if not (folder / name).exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        with suppress(OSError):  # no split is better than a partial one
            for path in new:
                path.unlink(missing_ok=True)
            for path in fresh:
                path.rmdir()
        raise Unwritable(folder, error, "nothing was kept: free disk space, or choose another --out") from None
    use = f"train with --labelled {folder / 'labelled.txt'} --val {folder / 'val.txt'}"
    if data.group is not None:
        use += f" 'data.group={data.group}', which keeps the groups of validation images out of the unlabelled ones"
    return split, [*dataset.notes, *split.notes, f"wrote split {split.hash} to {folder}", use]
