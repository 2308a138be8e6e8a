import copy
import functools
import math

import pytest
import torch
from torch import nn
from toy_training import Lines, ToyMethod, batches, differences, evaluate, optimisers, settings

from fuzzyseg.engine import NonFiniteLoss, fit
from fuzzyseg.engine.checkpoint import load
from fuzzyseg.methods.base import Progress, Step


def train(method=None, draw=None, name="sgd", lr=0.05, sinks=(), call=None, **options):
    method = method or ToyMethod()
    outcome = fit(
        method, draw or batches(), optimisers(method, name, lr), settings(**options), sinks=sinks, **(call or {})
    )
    return method, outcome


def weights(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


def largest_gap(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a if a[name].is_floating_point())


def plain_method():
    """Without noise and batch statistics, so that splitting a batch changes nothing."""
    return ToyMethod(dropout=0.0, noise=0.0, norm=lambda c: nn.GroupNorm(2, c))


def test_it_learns_and_tells_the_method_the_progress():
    sink = Lines()
    method, outcome = train(sinks=[sink], steps=30, lr=0.2)
    assert sink.lines[-1]["losses"]["supervised"] < sink.lines[0]["losses"]["supervised"]
    assert method.seen == [Progress(step, 30) for step in range(30)]
    assert method.after == method.seen
    assert sink.ticks == list(range(1, 31))
    assert (outcome.step, outcome.finished, outcome.interrupted, outcome.last) == (30, True, False, None)
    assert outcome.predictor is method.student
    assert not outcome.predictor.training


def test_accumulation_equals_one_batch_at_equal_valid_pixels():
    one, _ = train(plain_method(), batches(1, all_valid=True), steps=5)
    two, _ = train(plain_method(), batches(2, all_valid=True), steps=5)
    assert largest_gap(weights(one), weights(two)) < 1e-6
    assert largest_gap(weights(one), weights(plain_method())) > 1e-3


def test_a_line_holds_the_numbers_of_its_step():
    sink, halves = Lines(), Lines()
    train(plain_method(), batches(1, all_valid=True), sinks=[sink], steps=6)
    train(plain_method(), batches(2, all_valid=True), sinks=[halves], steps=6)
    assert [line["step"] for line in sink.lines] == [1, 4, 6]
    for line, half in zip(sink.lines, halves.lines, strict=True):
        assert list(line) == ["step", "loss", "losses", "metrics", "lr", "time"]
        assert line["loss"] == pytest.approx(sum(line["losses"].values()))
        assert len(line["metrics"]["share"]) == 3
        assert isinstance(line["metrics"]["confidence"], float)
        assert line["lr"]["head"] == pytest.approx(0.05 * (1 - (line["step"] - 1) / 6) ** 0.9)
        assert line["time"]["eta_seconds"] >= 0
        # means over the micro-batches
        assert half["losses"] == pytest.approx(line["losses"], rel=1e-5)
        assert half["metrics"]["share"] == pytest.approx(line["metrics"]["share"], rel=1e-5)


def test_a_metric_that_found_nothing_to_measure_is_left_out_of_the_mean():
    class Halting(ToyMethod):
        calls = 0

        def forward(self, batch, progress):
            step = super().forward(batch, progress)
            self.calls += 1
            step.metrics = {"some": torch.tensor(math.nan if self.calls % 2 else 3.0), "none": torch.tensor(math.nan)}
            return step

    sink = Lines()
    train(Halting(), batches(2), sinks=[sink], steps=1)
    assert sink.lines[0]["metrics"]["some"] == 3.0
    assert math.isnan(sink.lines[0]["metrics"]["none"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_bounds_the_norm_of_all_gradients_together(precision):
    method = plain_method()
    before = weights(method)
    train(method, clip=1e-3, steps=1, lr=1.0, precision=precision)
    moved = [after - before[name] for name, after in weights(method).items() if name.startswith("student")]
    # SGD's update is rate x (gradient + decay x weight), with a decay of 1e-3
    decayed = [1e-3 * before[n] if before[n].dim() > 1 else 0 * before[n] for n in before if n.startswith("student")]
    norm = torch.stack([(m + d).norm() for m, d in zip(moved, decayed, strict=True)]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_a_non_finite_loss_names_term_step_images_and_leaves_the_weights():
    kept = []
    method = ToyMethod()
    method.break_at = 6
    method.after_step = lambda progress: kept.append(weights(method))
    with pytest.raises(NonFiniteLoss) as caught:
        train(method, batches(2), "adamw", steps=20)
    text = str(caught.value)
    assert "step 7" in text
    assert "consistency is nan" in text
    assert "supervised is" not in text
    assert all(f"labelled-6-{k}" in text and f"un-6-{k}" in text for k in range(4))
    now = {name: value for name, value in weights(method).items() if "running" not in name and "num" not in name}
    assert differences(now, {name: kept[-1][name] for name in now}) == []


def broken(step, image=False):
    method, draw = ToyMethod(), batches()

    def damaged(start, stop):
        for number, micro_batches in zip(range(start, stop), draw(start, stop), strict=True):
            if image and number == step:
                micro_batches[0]["labelled"].image[2, 0, 3, 3] = torch.inf
            yield micro_batches

    method.break_at = step
    with pytest.raises(NonFiniteLoss) as caught:
        train(method, damaged, steps=4)
    return str(caught.value).splitlines()[-1]


def test_a_non_finite_loss_blames_what_can_be_its_cause():
    first, later, image = broken(0), broken(2), broken(0, image=True)
    assert "class_weights" in first
    assert "data.std" in first
    assert "optim.lr" not in first  # no step was made yet
    assert "optim.lr" in later
    assert "labelled-0-2" in image
    assert "labelled-0-1" not in image
    assert "class_weights" not in image


def test_the_average_is_the_literal_formula_and_is_what_is_evaluated_and_saved(tmp_path):
    values, evaluated = [], []
    method = ToyMethod()
    method.after_step = lambda progress: values.append(copy.deepcopy(method.student.state_dict()))

    def look(predictor, step):
        evaluated.append(copy.deepcopy(predictor.state_dict()))
        return {"miou": 0.5}

    call = {"evaluate": look, "checkpoint": tmp_path / "last.pt"}
    _, outcome = train(method, steps=6, ema=0.3, call=call)
    expected = values[0]
    for n, value in enumerate(values[1:], start=1):  # after n updates; the warm-up ends between two of them
        d = min(0.3, (1 + n) / (10 + n))
        expected = {
            name: d * expected[name] + (1 - d) * value[name] if value[name].is_floating_point() else value[name]
            for name in value
        }
    assert largest_gap(evaluated[0], expected) < 1e-6
    assert evaluated[0]["encoder.1.num_batches_tracked"] == 6 * 2  # two passes a step
    assert largest_gap(evaluated[0], method.student.state_dict()) > 1e-4
    assert differences(outcome.predictor.state_dict(), evaluated[0]) == []
    saved = load(tmp_path / "last.pt")["modules"]["average"]
    assert (
        differences({k.removeprefix("module."): v for k, v in saved.items() if k != "n_averaged"}, evaluated[0]) == []
    )


@pytest.mark.parametrize(
    ("every", "steps"), [(0, [10]), (4, [4, 8, 10]), (5, [5, 10]), (None, [])], ids=["end", "4", "5", "never"]
)
def test_when_it_evaluates(every, steps):
    seen, sink = [], Lines()

    def look(predictor, step):
        assert not torch.is_grad_enabled()
        seen.append(step)
        return evaluate(predictor, step)

    method, outcome = train(steps=10, eval_every=every, log_every=100, sinks=[sink], call={"evaluate": look})
    assert seen == steps
    assert [line["step"] for line in sink.lines if "evaluation" in line] == steps
    assert (outcome.last or {}).get("step") == (steps[-1] if steps else None)
    assert all(flags == [True] * 4 for flags in method.training_flags)


def test_stopping_early_evaluates_only_when_due():
    seen = []
    call = {"evaluate": lambda predictor, step: seen.append(step) or {"miou": 0.1}}
    train(steps=10, stop_at=7, eval_every=0, call=call)
    train(steps=10, stop_at=6, eval_every=3, call=call)
    assert seen == [3, 6]


def test_evaluating_changes_nothing_that_is_learnt():
    with_, _ = train(steps=8, eval_every=2, call={"evaluate": evaluate})
    without, _ = train(steps=8, eval_every=None, call={"evaluate": evaluate})
    assert differences(weights(with_), weights(without)) == []


def test_the_best_is_kept_once_for_each_record():
    scores = iter([0.2, math.nan, 0.5, 0.4, 0.5])
    kept = []
    call = {
        "evaluate": lambda predictor, step: {"miou": next(scores)},
        "keep_best": lambda predictor, result: kept.append(result),
    }
    _, outcome = train(steps=5, eval_every=1, call=call)
    assert kept == [{"step": 1, "miou": 0.2}, {"step": 3, "miou": 0.5}]
    assert outcome.best == {"step": 3, "miou": 0.5}
    assert outcome.last == {"step": 5, "miou": 0.5}


def test_frozen_batch_norm_stays_frozen_after_an_evaluation():
    method = ToyMethod()
    before = weights(method)
    train(method, steps=6, freeze_batch_norm=True, eval_every=2, call={"evaluate": evaluate})
    assert all(flags == [True, False, True, True] for flags in method.training_flags)
    after = weights(method)
    assert differences(*({k: v for k, v in w.items() if "running" in k} for w in (before, after))) == []


def test_draw_weights_are_published_after_each_step():
    method = ToyMethod()
    method.weights = torch.ones(3, 5)
    seen = []
    train(method, steps=3, call={"publish": lambda *values: seen.append(values)})
    assert [(stream, step) for stream, step, _ in seen] == [("unlabelled", 0), ("unlabelled", 1), ("unlabelled", 2)]
    assert all(value is not None and value.shape == (3, 5) for _, _, value in seen)


def test_noise_depends_on_the_seed_and_the_step_alone():
    torch.manual_seed(1)
    first, _ = train(steps=3)
    torch.manual_seed(2)
    again, _ = train(steps=3)
    other, _ = train(steps=3, seed=8)
    assert differences(weights(first), weights(again)) == []
    assert differences(weights(first), weights(other))
    assert len({*first.drawn, *other.drawn}) == 6


def test_images_may_run_out_only_at_the_end():
    def short(start, stop):
        yield from batches()(start, stop - 1)

    with pytest.raises(ValueError, match="shorter"):
        train(draw=short, steps=3)


def test_fp16_survives_gradients_that_overflow():
    sink = Lines()
    method, outcome = train(precision="fp16", steps=4, sinks=[sink])
    assert all(value.isfinite().all() for value in weights(method).values())
    assert [line["skipped_steps"] for line in sink.lines][-1] == outcome.skipped
    method = ToyMethod()
    before = weights(method)
    method.forward = lambda batch, progress: Step({"x": 1e3 * method.student(batch["labelled"].image).float().sum()})
    _, outcome = train(method, precision="fp16", steps=2)
    assert outcome.skipped == 2
    assert all(torch.equal(value, before[name]) for name, value in weights(method).items() if "student.head" in name)


def test_compiled_is_the_same_within_rounding(monkeypatch):
    # only the capture of the graph is tested: compiling C++ takes a minute
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, _ = train(plain_method(), steps=3)
    compiled, _ = train(plain_method(), steps=3, compile=True)
    assert largest_gap(weights(plain), weights(compiled)) < 1e-6
