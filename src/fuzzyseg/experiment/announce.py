"""Messages to the user before and after training."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fuzzyseg.config import DataConfig
from fuzzyseg.data.splits.split import Split
from fuzzyseg.data.splits.validation import FEW
from fuzzyseg.data.text import short
from fuzzyseg.engine import Outcome
from fuzzyseg.experiment.build import Setup
from fuzzyseg.experiment.prepare_data import Material, say_balance, say_sizes
from fuzzyseg.experiment.results import record
from fuzzyseg.experiment.threshold_policy import say_threshold
from fuzzyseg.losses import SET_LOSSES
from fuzzyseg.methods import Method
from fuzzyseg.run.files import fingerprint
from fuzzyseg.run.folder import RunFolder
from fuzzyseg.run.logs import SCORE
from fuzzyseg.run.progress import score_text


def tell(text: str) -> None:
    """Print `text`, or do nothing if the terminal has been closed; training is then stopped by a signal."""
    try:
        print(text)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the flush at exit does not fail either


def announce(
    setup: Setup, data: DataConfig, material: Material, method: Method, notes: Sequence[str], say: Callable[[str], None]
) -> None:
    """Describe data, method and loss to the user. notes: result of `notes_of`."""
    sentences = [*material.dataset.notes, *material.split.notes]
    sentences += say_sizes(material, setup.crop, data.image_size)
    sentences += say_balance(material, data.balance) + say_copies(material.split)
    name, requested = setup.pixel_loss, setup.loss.name
    parameters = sum(p.numel() for p in method.parameters() if p.requires_grad)
    shown = f"paper ({name or 'none'})" if requested == "paper" else name
    sentences.append(f"method {setup.name}, loss {shown}, {parameters / 1e6:.1f} M trainable parameters")
    if setup.uses_threshold:
        sentences += say_threshold(setup.loss, method.facts)
    if idle := setup.idle:
        has = "has" if len(idle) == 1 else "have"
        sentences.append(f"note: {', '.join(idle)} {has} no effect with the current settings of --loss {requested}")
    if name in SET_LOSSES and len(material.dataset.classes) == 2:
        subject = "FPL" if name == "fuzzy" else f"the loss {name}"
        sentences.append(f"two classes: every fuzzy set contains one class, so {subject} is weighted cross entropy")
    sentences += [f"note: {note}" for note in notes]
    for sentence in sentences:
        say(sentence)


def say_copies(split: Split) -> list[str]:
    """Return a warning if training images have the same content as validation images."""
    sizes, by_ends = {item.image.stat().st_size for item in split.val}, dict[bytes, list[Path]]()
    for item in split.val:
        by_ends.setdefault(_ends(item.image), []).append(item.image)
    # Uncompressed images often have equal sizes, so whole files are read only if their ends are also equal.
    alike = [item.image for item in split.all_ if item.image.stat().st_size in sizes]
    pairs = [(image, by_ends.get(_ends(image), ())) for image in alike]
    copies = [image for image, others in pairs if any(fingerprint(image) == fingerprint(other) for other in others)]
    if not copies:
        return []
    what = f"{len(copies)} training images are copies" if len(copies) > 1 else "a training image is a copy"
    return [f"warning: {what} of validation images, so the score will be too high; remove {short(copies, 3)}"]


def _ends(path: Path, count: int = 4096) -> bytes:
    """Return the first and last bytes of a file."""
    with path.open("rb") as file:
        first = file.read(count)
        file.seek(-min(count, path.stat().st_size), os.SEEK_END)
        return first + file.read()


def summary(run: RunFolder, outcome: Outcome, *, score: str) -> str:
    """Return the final message of a training run. score: key of the score that selects the best checkpoint."""
    if not outcome.finished:
        ending = "interrupted" if outcome.interrupted else "stopped as requested"
        return f"{ending}: step {outcome.step} is saved in {run.path}; continue with --resume"
    if outcome.last is None:
        return f"done: model in {run.model_dir} (not evaluated)"
    text = f"done: {score_text(outcome.last)} at the last step"
    if outcome.best is not None:
        text += f" (best on val {100 * outcome.best[score]:.2f} % at step {outcome.best['step']})"
    absent = [name for name, value in outcome.last.get("ceiling", {}).items() if value is None]
    text += f" (no pixel of {', '.join(absent)} in the validation masks)" if absent else ""
    lines = [f"{text}; model in {run.model_dir}"]
    images, error = outcome.last.get("images", FEW), outcome.last.get(f"{SCORE}_error")
    if images < FEW and error is not None:
        lines.append(
            f"two standard errors of this mIoU over the choice of {images} validation images are {200 * error:.1f} "
            "points: smaller differences between models may be chance"
        )
    if record(run).get("held_out"):
        lines.append(
            "the validation images were held out of those with masks: once the settings are chosen, train once more "
            "with --val none and another --out to use all of them"
        )
    return "\n".join(lines)
