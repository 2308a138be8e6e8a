import io
from contextlib import closing
from datetime import timedelta

import pytest
from rich.console import Console

from fuzzyseg.run import progress
from fuzzyseg.run.progress import Display, score_text

LINE = {
    "step": 10,
    "loss": 1.5,
    "losses": {"supervised": 1.0, "[unsup]": 0.5},
    "lr": {"backbone": 0.0025, "head": 0.025},
    "time": {"images_per_second": 12.34, "eta_seconds": 3723.0},
}


def console(**options):
    return Console(file=io.StringIO(), width=60, **options)


def test_plain_lines_without_a_terminal():
    out = console()
    with closing(Display(2000, console=out)) as display:
        display.tick(9)
        display.write(LINE)
        display.write({**LINE, "step": 20, "evaluation": {"miou": 0.4512}})
        display.write({**LINE, "step": 30})
    first, second, third = out.file.getvalue().splitlines()  # no wrapping at the width, nothing from tick
    assert first == ("step 10/2000  loss 1.5 (supervised 1, [unsup] 0.5)  lr 0.0025, 0.025  12.3 images/s  ETA 1:02:03")
    assert second.endswith("mIoU 45.12 %")
    assert "mIoU" not in third  # not measured at this step


@pytest.mark.parametrize("live", [False, True])
def test_a_plan_is_said_once_and_a_run_of_days_is_told(monkeypatch, live):
    now, out = [0.0], Console(file=io.StringIO(), width=200, force_terminal=live)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with closing(Display(9000, console=out, live=live)) as display:
        for step in range(1, 7):
            now[0] += 500 if step == 1 else 15  # the first step is no measure
            display.tick(step)
            if step == 1:
                display.write({**LINE, "step": 1, "time": {"memory_mib": 2000.0}})
            if step == 2:
                now[0] += 300  # an evaluation is no part of a step
                display.write({**LINE, "step": 2, "evaluation": {"miou": 0.4}})
    text = out.file.getvalue()
    assert text.count("plan: ") == 1
    assert f"15 s/step, {timedelta(seconds=15 * 8997)} for 8997 steps, 2.1 GB" in text and "--steps 5760" in text


@pytest.mark.parametrize(("total", "plans"), [(3, 0), (4, 1)])
def test_a_plan_is_for_steps_that_are_left_and_evaluations_after_each_step_hide_it_not(monkeypatch, total, plans):
    now, out = [0.0], Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with closing(Display(total, console=out, live=False)) as display:
        for step in range(1, total + 1):
            now[0] += 2
            display.tick(step)
            now[0] += 100
            display.write({**LINE, "step": step, "evaluation": {"miou": 0.4}})
    text = out.file.getvalue()
    assert text.count("plan: ") == plans
    assert plans == 0 or "2 s/step, 0:00:02 for 1 steps" in text


@pytest.mark.parametrize("ticks", [0, 1])
def test_a_first_step_that_takes_long_says_what_it_does(monkeypatch, ticks):
    monkeypatch.setattr(progress, "SLOW", 0.1)
    out = console()
    with closing(Display(20, console=out, work="8 images")) as display:
        for _ in range(ticks):
            display.tick(1)
        display._slow.join()
    assert ("still computing the first step" in out.file.getvalue()) == (ticks == 0)
    assert "8 images" in out.file.getvalue() or ticks


def test_the_score_over_resolvable_classes_stands_beside_miou():
    assert score_text({"miou": 0.4512, "miou_resolvable": 0.5}) == "mIoU 45.12 % (50.00 % over resolvable classes)"
    assert score_text({"miou": 0.4512, "miou_resolvable": None}) == "mIoU 45.12 %"


def test_a_bar_on_a_terminal():
    out = Console(file=io.StringIO(), width=200, force_terminal=True)
    with closing(Display(2000, done=5, console=out)) as display:
        display.tick(10)
        display.write(LINE)
        display.tick(11)
    text = out.file.getvalue()
    assert "11/2000" in text
    assert "ETA 1:02:03" in text
    assert "[unsup] 0.5" in text
