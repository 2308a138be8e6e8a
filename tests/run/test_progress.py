import io
from contextlib import closing

from rich.console import Console

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
    assert third.endswith("mIoU 45.12 %")  # the last one stays


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
