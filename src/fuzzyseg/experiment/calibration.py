"""Calibration on held-back labelled images: T, a temperature, and the reliability of confident pixels."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from fuzzyseg.analysis.table import count_confident
from fuzzyseg.analysis.temperature import temperature_of
from fuzzyseg.analysis.threshold import conformal_threshold, coverage_by_threshold, smallest_covering
from fuzzyseg.config import ConfigError
from fuzzyseg.data import Item
from fuzzyseg.data.splits.groups import in_groups
from fuzzyseg.data.splits.holdout import hold_out
from fuzzyseg.engine.buffers import first_process_buffers
from fuzzyseg.engine.trainer import Batches
from fuzzyseg.experiment.build import Setup
from fuzzyseg.experiment.prepare_data import Material
from fuzzyseg.experiment.validation import Scoring, sampled_pixels, set_options, training_pairs
from fuzzyseg.inference import Predictor
from fuzzyseg.losses import ConfidentPixels
from fuzzyseg.methods import Method
from fuzzyseg.ops import distributed


def with_held_back(setup: Setup, material: Material, names: Collection[str] = ()) -> Material:
    """Hold back labelled images if the setup calibrates on them. names: images to hold back again when resuming a run.

    Raises ConfigError if too few labelled images are left, or if T cannot be used with stored predictions.
    """
    # A-FPL computes T at the network's stride, but crops of stored predictions are at image resolution.
    adaptive = setup.uses_threshold and setup.loss.policy == "adaptive"
    if setup.method.stored_teacher and (setup.calibrates or adaptive):
        raise ConfigError(
            f"loss.threshold: found {setup.loss.threshold!r}, which does not apply to the stored predictions of a "
            "teacher; give a number, auto or a schedule"
        )
    if not setup.calibrates and not setup.gates:
        return material
    labelled = len(material.split.labelled)
    count = max(1, round(setup.loss.calibrated.hold_back * labelled))
    if count >= labelled:
        key, value, other = "loss.threshold", setup.loss.threshold, "threshold"
        if not setup.calibrates:
            key, value, other = "method.confidence", "gate", "value"
        raise ConfigError(
            f"{key}: found {value!r} with {labelled} labelled image(s), {count} of them to be held back; "
            f"label more, lower loss.calibrated.hold_back, or choose another {other}"
        )
    split, held_back = hold_out(material.split, material.dataset, count, material.group, names)
    return replace(material, split=split, held_back=held_back)


class Calibration:
    """Sets T so that the fuzzy sets contain the true class at the required fraction of held-back pixels. Also sets
    the temperature if T is conformal, and whether the method's confidence mask is active.

    Runs before each step that is a multiple of `every` (at step 0 only with `init`), on the network that is evaluated.
    The result depends only on step and weights, so a resumed run is bit-identical. The images are split across the
    processes.

    If T is conformal, every fourth image (or group of images) is used only to fit the temperature, because the
    coverage guarantee does not hold on pixels that the temperature was fitted on. A single image is used for both.
    """

    def __init__(self, setup: Setup, scoring: Scoring, method: Method, say: Callable[[str], None]) -> None:
        settings = setup.loss.calibrated
        self.every = max(1, scoring.train.steps // 10) if settings.every is None else settings.every
        self.at_start = bool(setup.init)
        if not self.every and not self.at_start:
            problem = "found 0 (only at the start), but the network starts untrained"
            raise ConfigError(f"loss.calibrated.every: {problem}; give --init, or a number of steps")
        if not settings.low < settings.high:
            raise ConfigError(f"loss.calibrated: found low {settings.low}, high {settings.high}; expected low < high")
        self.loss, self.pixel_loss = setup.loss, method.pixel_loss
        count = max(2, 1 + round((settings.high - settings.low) / 0.005))
        self.thresholds: list[float] = torch.linspace(settings.low, settings.high, count, dtype=torch.float64).tolist()
        self.scoring, self.method, self.say = scoring, method, say
        self.gate = method.confident if setup.gates else None
        self.sets = setup.calibrates
        self.conformal = self.sets and setup.loss.policy == "conformal"
        held_back = scoring.material.held_back
        self.fitted_on, self.items = fourths(held_back, scoring.material.group) if self.conformal else ([], held_back)
        if self.conformal and setup.loss.conformal.unit == "image":
            check_images(len(self.items), setup.loss.coverage)

    def due(self, step: int) -> bool:
        """Return whether to calibrate before this step."""
        return self.at_start if step == 0 else self.every > 0 and step % self.every == 0

    def batches(self, source: Batches) -> Batches:
        """Wrap `source` so that `calibrate` is called before each step at which it is due."""

        def calibrated(start: int, stop: int) -> Iterator[Any]:
            for step, batch in zip(range(start, stop), source(start, stop), strict=True):
                if self.due(step):
                    self.calibrate(step)
                yield batch

        return calibrated

    def calibrate(self, step: int) -> None:
        """Measure and update all values. A value is left unchanged if there are no pixels to measure it on."""
        network = self.method.predictor()
        predictor = Predictor(network, self.scoring.card_at(step), self.scoring.device)
        with torch.no_grad(), first_process_buffers(network):
            if self.conformal:
                self._fit_temperature(predictor, step)
            counts, confident = self._measure(predictor)
        if self.sets and counts[0, -1] > 0:
            self._set_threshold(counts, step)
        if isinstance(self.gate, ConfidentPixels) and confident[0] > 0:
            _, above, right = confident.tolist()
            reliable = self.gate.decide(above, right)
            share = f"{100 * right / above:.1f} % of {above:.0f}" if above else "no"
            self.say(
                f"step {step}: {share} held-back confident pixels are right, "
                + ("enough to use only confident pixels" if reliable else "too few, so all pixels are used")
            )

    def _fit_temperature(self, predictor: Predictor, step: int) -> None:
        found = sampled_pixels(predictor, self.scoring.reader, self.fitted_on)
        if images := [pixels for pixels in found if pixels is not None]:
            self.pixel_loss.temperature.fill_(temperature_of(images))
            self.say(f"step {step}: temperature {float(self.pixel_loss.temperature):.3f}")

    def _measure(self, predictor: Predictor) -> tuple[Tensor, Tensor]:
        """Return the sum of `_measure_image` over all images, which are split across the processes."""
        rows = distributed.divided(self.items, partial(self._measure_image, predictor))
        counts, confident = (reduce(torch.add, each) for each in zip(*rows, strict=True))
        return counts, confident

    def _measure_image(self, predictor: Predictor, item: Item) -> tuple[Tensor, Tensor]:
        """Return coverage counts (1+C,M+1) and counts (3,) of all pixels, confident ones, and correct confident ones.

        Columns of the coverage counts: units covered at each threshold, then all units. Rows: all pixels, then the
        pixels of each most probable class. The coverage counts are zero if T is not calibrated.
        """
        counts = torch.zeros(1 + self.method.facts.classes, len(self.thresholds) + 1, dtype=torch.float64)
        confident = torch.zeros(3, dtype=torch.float64)
        for logits, mask in training_pairs(predictor, self.scoring.reader, item):
            teacher = self.pixel_loss.tempered(logits)
            if self.sets:
                counts += self._covered(teacher, mask)
            if isinstance(self.gate, ConfidentPixels):
                tally = count_confident(teacher, mask, [self.gate.threshold])
                confident += torch.stack([tally.pixels, tally.above[0], tally.right[0]])
        return by_image(counts) if self.conformal and self.loss.conformal.unit == "image" else counts, confident

    def _covered(self, teacher: Tensor, mask: Tensor) -> Tensor:
        covered, pixels = coverage_by_threshold(teacher, mask, self.thresholds, set_options(self.loss))
        rows = torch.cat([covered, pixels.unsqueeze(1)], 1)
        return torch.cat([rows.sum(0, keepdim=True), rows])

    def _set_threshold(self, counts: Tensor, step: int) -> None:
        choose = conformal_threshold if self.conformal else smallest_covering
        target = self.loss.coverage
        fitted, share = choose(counts[0, :-1], counts[0, -1], self.thresholds, target)
        buffer = self.pixel_loss.threshold
        if buffer.dim() == 0:
            buffer.fill_(fitted)
            self.say(f"step {step}: T = {fitted:.3f} covers {100 * share:.1f} % of the held-back truth")
            return
        each = [choose(row[:-1], row[-1], self.thresholds, target)[0] if row[-1] > 0 else fitted for row in counts[1:]]
        buffer.copy_(torch.tensor(each))
        self.say(f"step {step}: T by class {', '.join(f'{value:.3f}' for value in each)}; one for all: {fitted:.3f}")


def fourths(items: Sequence[Item], group: str | None = None) -> tuple[list[Item], list[Item]]:
    """Return the items of every fourth group, starting with the first, and all others. A single item is in both lists.

    Without `group`, or if all items are in one group, each item is treated as a group.
    """
    keyed = in_groups(items, group)
    keys = list(dict.fromkeys(key for key, _ in keyed))
    if group is not None and len(keys) == 1:
        return fourths(items)
    first, others = ([item for key, item in keyed if (key in keys[::4]) == inside] for inside in (True, False))
    return first, others or first


def check_images(images: int, coverage: float) -> None:
    """Raise ConfigError if there are too few images to guarantee this coverage."""
    minimum = next(n for n in itertools.count(1) if n >= (n + 1) * coverage)
    if images < minimum:
        raise ConfigError(
            f"loss.conformal.unit: found 'image' with {images} held-back image(s) for T; a coverage of {coverage:g} "
            f"needs at least {minimum}: label more, raise loss.calibrated.hold_back, or count by pixel"
        )


def by_image(rows: Tensor) -> Tensor:
    """Divide pixel counts (R,M+1) of one image by their last column, the number of pixels; empty rows become 0.

    The last column becomes 1, so summing over images counts each image as one unit.
    """
    return torch.where(rows[:, -1:] > 0, rows / rows[:, -1:].clamp(min=1), 0)
