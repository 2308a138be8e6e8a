"""Bad command lines, and bad plans of sweeps."""

from __future__ import annotations

from typing import Any

import yaml
from typer.main import get_command

from chaos.place import Bad, Place, typo
from fuzzyseg.cli import app

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = {
    name: [opt for each in command.params for opt in (*each.opts, *each.secondary_opts) if opt.startswith("--")]
    for name, command in COMMANDS.items()
}
NEEDS_ARGUMENT = (
    *("evaluate", "predict", "suggest", "report", "export", "push", "distill", "split", "sweep", "check", "convert"),
)
NAMES = (
    *(
        "no/such",
        "",
        "x" * 5000,
        "日本",
        "a\nb",
        "-",
        "--",
        "a/../../no",
        "\udcff",
        "%s",
        "$(id)",
        "nan",
        "\x1b[2J",
        ".",
    ),
)
"""None of these is a folder with a run, a model or a data set."""


def draw(place: Place) -> Bad:
    return place.rng.choices((_option, _value, _missing, _name, _plan), (4, 5, 2, 4, 3))[0](place)


def _start(place: Place, name: str) -> list[str]:
    """A command that would succeed, or fail for another reason only if it needs an optional package."""
    good, out = place.good, place.folder / "results"
    run, data = str(good / "run"), str(good / "data")
    images = str(good / "data" / "images" / "val")
    return {
        "train": place.train(),
        "evaluate": ["evaluate", run, "--device=cpu"],
        "predict": ["predict", run, images, f"--out={out}", "--device=cpu"],
        "suggest": ["suggest", run, images, f"--out={out}"],
        "report": ["report", run, f"--out={out}.html"],
        "export": ["export", run, "--format=smp", f"--out={out}"],
        "push": ["push", run, "nobody/nothing"],
        "distill": ["distill", run, "--steps=1", f"--out={out}", "--encoder=tu-test_resnet", "--weights=none"],
        "analyse": ["analyse", run, f"--out={out}"],
        "split": ["split", data, "--labelled=2", f"--out={out}"],
        "sweep": ["sweep", str(place.write("plan.yaml", yaml.safe_dump(_plan_of(place)))), f"--out={out}"],
        "compare": ["compare", f"--data={data}", f"--out={out}", "--steps=1"],
        "methods": ["methods"],
        "settings": ["settings"],
        "check": ["check", data],
        "convert": ["convert", data, f"--out={out}"],
        "demo": ["demo", f"--out={out}"],
    }[name]


def _option(place: Place) -> Bad:
    rng = place.rng
    name = rng.choice(list(COMMANDS))
    wrong = "--" + typo(rng.choice(OPTIONS[name])[2:], rng)
    known = OPTIONS[name]
    if any(each.startswith(wrong) for each in known) or "=" in wrong:
        wrong = "--nonsense"
    form = rng.choice(([wrong], [f"{wrong}=1"], [wrong, "1"], ["-Z"], [f"--{'x' * 4000}"]))
    return Bad(f"{name} {form[0][:60]}", [*_start(place, name), *form])


VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "evaluate": {"--split": ("nonsense", "", "1"), "--mode": ("nonsense", ""), "--device": ("gpu", "cuda:99", "tpu"),
                 "--gallery": ("-1", "x", "1.5"), "--data": ("no/such", "")},
    "predict": {"--write": ("nonsense", "mask,nonsense", "k;sets"), "--tile": ("x", "0x0", "-1x5", "1x2x3", "5x"),
                "--scales": ("x", "0", "-1", "nan", "inf", "1,,x", "1e999"),
                "--max-megapixels": ("0", "-1", "x", "1.5"), "--device": ("gpu", "cuda:99", "cpu:x")},
    "suggest": {"--count": ("0", "-1", "x", "1.5"), "--out": ("",), "--device": ("gpu", "cuda:77")},
    "report": {"--out": ("", "/proc/x.html", "/dev/null/x.html")},
    "export": {"--format": ("nonsense", "", "ONNX2"), "--static": ("x", "0x0", "-1", "1x1x1"),
               "--images": ("0", "x"), "--tolerance": ("-1", "x")},
    "split": {"--labelled": ("0", "-1", "1/0", "x", "9999", "nan", "every:0"),
              "--val": ("2.0", "fold:9/3", "-1", "nan"), "--seed": ("-1", "x", "1.5"), "--policy": ("nonsense",),
              "--group": ("(", "[")},
    "methods": {"": ("nonsense", "日本", "x" * 900)},
    "settings": {"": ("nonsense", "train.nonsense", "a.b.c.d", "")},
    "compare": {"--methods": ("nonsense", "cps,nonsense"), "--loss": ("nonsense", "fuzzy,x"), "--data": ("no/such", ""),
                "--labelled": ("0", "x", "-1"), "--steps": ("0", "x", "-5")},
    "train": {"--steps": ("0", "-1", "x", "1.5", "1e9x"), "--batch": ("0", "-1", "x"), "--crop": ("x", "0", "1x"),
              "--device": ("gpu", "cuda:99"), "--seed": ("-1", "x", str(2**63)), "--workers": ("-1", "x"),
              "--method": ("nonsense", "CPS"), "--loss": ("nonsense",), "--labelled": ("0", "x", "1/0", "-3"),
              "--val": ("x", "2.0"), "--arch": ("nonsense",), "--encoder": ("nonsense", "tu-x"),
              "--weights": ("no/such.pth",), "--init": ("no/such", ","), "--out": ("", "/proc/x", "/dev/null/x"),
              "--import": ("no/such.py", "/dev/null/x.py"), "--eval-every": ("-1",), "--save-every": ("0",),
              "--stop-at": ("0", "x"), "--image-size": ("0", "x"), "--more": ("no/such", ","),
              "--unlabelled": ("no/such",)},
    "distill": {"--steps": ("0", "x"), "--loss": ("nonsense",), "--arch": ("nonsense",), "--device": ("gpu",),
                "--crop": ("x",), "--unlabelled": ("no/such/*.png",)},
    "sweep": {"--arms": ("nonsense", "fuzzy,x"), "--reading": ("nonsense",)},
    "analyse": {"--model": ("no/such",)},
    "check": {"--model": ("no/such",), "--labelled": ("0", "x"), "--val": ("x",),
              "--sheet": ("/proc/x.png", "/dev/null/x")},
    "convert": {"--labels": ("no/such.txt",)},
}  # fmt: skip
"""Values that an option cannot have."""


def _value(place: Place) -> Bad:
    name = place.rng.choice(list(VALUES))
    option = place.rng.choice(list(VALUES[name]))
    value = place.rng.choice(VALUES[name][option])
    more = [f"{option}={value}"] if option else [value]
    start = _start(place, name)
    kept = [word for word in start if not option or not word.startswith(f"{option}=")]
    return Bad(f"{name} {option} {value[:60]!r}", [*kept, *more])


def _missing(place: Place) -> Bad:
    rng = place.rng
    name = rng.choice((*NEEDS_ARGUMENT, "train", "distill", "demo"))
    out = str(place.folder / "o")
    argv = [name, *rng.choice(([], ["--out"], ["--out", out]))]
    if name == "train":
        data = ["--data", str(place.good / "data")]
        argv = ["train", *rng.choice((data, ["--out"], ["no.yaml"], ["x"], ["=5"], ["a.b.c"], ["--out", out]))]
    elif name == "demo":
        argv = ["demo", "--out"]
    return Bad(f"incomplete {argv}"[:100], argv)


def _name(place: Place) -> Bad:
    """A path that is none, or an unknown command."""
    rng = place.rng
    text = rng.choice(NAMES)
    if rng.random() < 0.2:
        wrong = typo(rng.choice(list(COMMANDS)), rng)
        wrong = "nonsense" if wrong in COMMANDS else wrong
        return Bad(f"command {wrong!r}", [wrong, *rng.choice(([], ["x"], ["--out", "y"]))])
    name = rng.choice(("evaluate", "predict", "suggest", "report", "export", "distill", "analyse", "split", "sweep",
                       "check", "convert", "predict images"))  # fmt: skip
    out = ["--out", str(place.folder / "o")]
    where = place.folder / "empty"
    where.mkdir()
    if text in ("", "."):
        text = str(where)
    more = {"predict": [str(place.good / "data")], "suggest": [str(place.good / "data")]}.get(name, [])
    if name == "predict images":
        return Bad(f"images {text[:60]!r}", ["predict", *out, "--", str(place.good / "run"), text])
    with_out = out if name not in ("evaluate", "check") else []
    return Bad(f"{name} {text[:60]!r}", [name, *with_out, "--", text, *more])


def _plan_of(place: Place) -> dict[Any, Any]:
    base = place.recipe()
    del base["out"], base["seed"]
    plan: dict[Any, Any] = {"title": "T", "base": base, "arms": {"supervised": {"method.name": "supervised"}, "fuzzy": {
        "method.name": "cps", "loss.name": "fuzzy"}}, "labelled": ["2"], "seeds": [0]}  # fmt: skip
    return plan


PLANS: tuple[dict[str, Any], ...] = (
    *({"arms": value} for value in (5, [], {}, "x", {"a,b": {}}, {"a": 5}, {"a": [1]}, {"a": {"nonsense": 1}},
                                    {"a": {"method.name": "nonsense"}}, {"a": {"train": 5}}, {"a": {"readings": 5}},
                                    {"a": {"base": 5}}, {"a": {"readings": {"x": {}}}}, {"a": {"loss.name": "x"}})),
    *({"labelled": value} for value in (5, ["0"], ["x"], ["-1"], {"a": 1}, ["9999"])),
    *({"seeds": value} for value in (5, [-1], ["x"], [0, 0], [1.5], {"a": 1})),
    *({"subsets": value} for value in ([0, 0], [-1], "x")),
    *({"expected": value} for value in (5, {"x": [1]}, {"fuzzy": [1, 2]}, {"fuzzy": ["a"]}, [1])),
    *({"pairs": value} for value in (5, [["a", "b"]], [["fuzzy"]], [["fuzzy", "supervised", "x"]], ["x"])),
    *({"start": value} for value in (5, [1], {"nonsense": 1})),
    *({"base": value} for value in (5, [1], {"nonsense": 1}, {"train.steps": 0}, {"data": {"root": "no/such"}}, {})),
    *({"readings": value} for value in (5, [1], {"a": 5})),
    *({"title": value} for value in (5, [1], None)),
    {"nonsense": 1},
    {1: 2},
    {"about": [1]},
)  # fmt: skip


def _plan(place: Place) -> Bad:
    change = place.rng.choice(PLANS)
    path = place.write("plan.yaml", yaml.safe_dump(_plan_of(place) | change))
    return Bad(f"plan {change}"[:160], ["sweep", str(path), "--out", str(place.folder / "sweep"), "--device=cpu"])
