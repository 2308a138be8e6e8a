"""Bad settings: as a recipe, as options and as KEY=VALUE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from chaos.place import Bad, Place, typo
from fuzzyseg.config.schema import Config
from fuzzyseg.config.short_names import SETTINGS

SIZES = ("train.crop", "evaluate.window", "data.image_size")
ANY_TEXT = ("data.labelled", "data.val")
"""Texts for which numbers may stand."""
OPEN = ("network", "method")


def fields(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, info


FIELDS = dict(fields())
SECTIONS = sorted({name.rpartition(".")[0] for name in FIELDS} - {""})


def _kinds(annotation: Any) -> set[Any]:
    """The plain types in an annotation, `Literal` with its values as a tuple."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {args}
    if origin in (list, dict, tuple):
        return {(origin, *(kind for arg in args for kind in _kinds(arg)))} if origin is not dict else {dict}
    if args:
        return set().union(*(_kinds(arg) for arg in args))
    return {annotation}


def _bounds(info: FieldInfo) -> list[float]:
    """Numbers just outside the bounds of a field."""
    result = []
    for each in info.metadata:
        for name, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
            if (limit := getattr(each, name, None)) is not None:
                result += [limit + step, limit + 1000 * step] if step else [limit]
    return result


def wrong_values(name: str, info: FieldInfo) -> list[Any]:
    """Values that a setting cannot have."""
    kinds = _kinds(info.annotation)
    nested: list[Any] = [{"a": 1}, {"a": {"b": [1]}}]
    if name == "loss.options":
        return [5, "text", [1, 2], [[]]]
    if name in SIZES:
        return [*nested, "axb", "12x", "1x2x3", -1, 0, [1, 2, 3], [0, 5], [-3, 4], 1.5, ".nan", [[1, 2]], "0x0"]
    if name == "loss.threshold":
        return [*nested, 0, -0.1, 1.01, math.nan, math.inf, "fixed", "conformal:", "conformal:1", "conformal:2",
                "conformal:x", "conformal:nan", "conformal:-1", True, [0.9], "", "1e400", "0"]  # fmt: skip
    if name == "loss.rule":
        return [*nested, 0, -1, 1.5, "m", "", True, [1], math.nan, "n+1"]
    result = [*nested, *_bounds(info)]
    lists = [kind for kind in kinds if isinstance(kind, tuple) and kind[0] in (list, tuple)]
    literals = [kind for kind in kinds if isinstance(kind, tuple) and kind not in lists]
    if lists:
        return [*result, 5, True, [[1, 2]], [{"a": 1}], [None], *(["a"] if str not in lists[0] else [[""], [1], [" "]])]
    result += [[1, 2], [], [[["deep"]]], ""]
    if int in kinds or float in kinds:
        result += ["text", "1 2", "0x1g", math.nan, math.inf, -math.inf, True, "١٢a", "1e999"]
        result += [1.5, 2.0001] if float not in kinds else []
        result += [-(10**30)] if _bounds(info) else []
    elif bool in kinds:
        result += ["maybe", 7, 2.5, "yes please", -1]
    elif literals:
        result += ["nonsense", 12345, 0.5, "日本", typo(str(literals[0][0]), _FIXED)]
    elif str in kinds and name not in ANY_TEXT:
        result += [12345, 0.5, True, "   "]
    return result


class _Fixed:
    """Chooses the last of everything, so that the typo is none of another value."""

    def randrange(self, count: int) -> int:
        return count - 1

    def choice(self, values: Any) -> Any:
        return values[-1]


_FIXED: Any = _Fixed()


def draw(place: Place) -> Bad:
    return place.rng.choices((_value, _key, _section, _yaml, _combination), (10, 4, 1, 3, 4))[0](place)


def _nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _given(place: Place, name: str, value: Any) -> list[str]:
    """The setting in a recipe, as an argument, or as an option."""
    rng = place.rng
    option = next((short for short, (key, metavar) in SETTINGS.items() if key == name and metavar), None)
    plain = isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    if option is not None and option not in ("policy", "group") and plain and rng.random() < 0.5:
        text = str(value)
        if not isinstance(value, str) and name not in SIZES and _kinds(FIELDS[name].annotation) <= {str, type(None)}:
            text = " "  # an option's number is a text
        return place.train(f"--{option.replace('_', '-')}={text}")
    if rng.random() < 0.4 and value != "":
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
        return place.train(f"{name}={text.removesuffix('...' + chr(10)).strip()}")
    return place.train(recipe=_merged(place.recipe(), _nested(name, value)))


def _value(place: Place) -> Bad:
    name = place.rng.choice(list(FIELDS))
    value = place.rng.choice(wrong_values(name, FIELDS[name]))
    return Bad(f"{name}: {value!r}", _given(place, name, value))


def _key(place: Place) -> Bad:
    rng = place.rng
    name = rng.choice([*FIELDS, *SECTIONS])
    parent, _, last = name.rpartition(".")
    wrong = typo(last, rng)
    known = {each.rpartition(".")[2] for each in [*FIELDS, *SECTIONS] if each.rpartition(".")[0] == parent}
    if wrong in known or not wrong.strip() or parent == "loss.options":
        wrong = "nonsense"
    key = f"{parent}.{wrong}".lstrip(".")
    value = rng.choice((1, "text", None, [1], {"a": 1}, True, "日本"))
    if rng.random() < 0.3:
        return Bad(f"unknown {key}", place.train(f"{key}={'x' if value is None else value}"))
    return Bad(f"unknown {key}", place.train(recipe=_merged(place.recipe(), _nested(key, value))))


def _section(place: Place) -> Bad:
    name = place.rng.choice(SECTIONS)
    value = place.rng.choice((5, "text", [1], [], True, 0.5, None, [{"a": 1}], ""))
    return Bad(f"section {name}: {value!r}", place.train(recipe=_merged(place.recipe(), _nested(name, value))))


HOSTILE = (
    "!!python/object/apply:os.system ['touch {pwned}']",
    "x: !!python/object/new:os.system ['touch {pwned}']",
    "train: !!python/name:os.system",
    "- a\n- b\n",
    "just words",
    "12",
    "train: {{steps: 1",
    "train: [1, 2",
    "train:\n\tsteps: 1\n",
    "train: {{steps: 1}}\ntrain: {{steps: 2}}\n",
    "train:\n  steps: 1\n  steps: 2\n",
    "{{[1]: 2}}",
    "? {{a: 1}}\n: b\n",
    "a: &a [*a]\n",
    "train: &a {{b: *a}}\n",
    "<<: 5\n",
    "train: *nothing\n",
    "seed: !!int abc\n",
    "seed: !!float abc\n",
    "seed: !!int ''\n",
    "train: {{evaluate: !!bool x}}\n",
    "out: 2020-99-99\n",
    "out: !!timestamp nonsense\n",
    "out: !!binary '***'\n",
    "seed: 0b2\n",
    "1: 2\n",
    "null: 3\n",
    "true: 3\n",
    "'': 3\n",
    "'a.b.c': 3\n",
    "---\ntrain: {{steps: 1}}\n---\nseed: 2\n",
    "%YAML 9.9\n---\nseed: 1\n",
    "out: \"\\x00\"\n",
    "out: \"a\\0b\"\n",
    "data: {{root: \"a\\0b\"}}\n",
    "train: {{device: \"cp\\0u\"}}\n",
    "out: '\x07'\n",
    "seed: 1 2: 3\n",
    "@seed: 1\n",
    "`seed`: 1\n",
    "seed: '\n",
    "seed: \"\\q\"\n",
    "seed: |nonsense\n",
    "!<tag:bad> seed: 1\n",
    "&a &b seed: 1\n",
)  # fmt: skip


def _yaml(place: Place) -> Bad:
    rng = place.rng
    deep, name = rng.randint(101, 5000), rng.choice(("recipe.yaml", "recipe.yml"))
    made: dict[str, str | bytes] = {
        "deep lists": "seed: " + "[" * deep + "]" * deep,
        "deep mappings": "seed: " + "{a: " * deep + "1" + "}" * deep,
        "deep blocks": "\n".join(" " * level + "a:" for level in range(min(deep, 400))),
        "deep dashes": "seed:\n" + "- " * deep + "1",
        "laughs": "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "long number": "seed: " + "9" * rng.randint(4301, 9000),
        "large number": f"seed: {10 ** rng.randint(19, 400)}",
        "bytes": bytes([0xff, *rng.randbytes(rng.randint(20, 300))]),
        "utf-16": "seed: 1\n".encode("utf-16"),
        "nulls": b"\x00" * rng.randint(1, 2000),
        "long": "# " + "x" * 2**18 + "\nseed: 1\n",
        "surrogate": b"out: \xed\xa0\x80\n",
    }  # fmt: skip
    what = rng.choice([*made, *["hostile"] * 2 * len(made)])
    text = rng.choice(HOSTILE).format(pwned=place.pwned) if what == "hostile" else made[what]
    path = place.write(name, text)
    if what == "hostile":
        what = str(text)
    # the options would make a training of a recipe that is read as something harmless
    return Bad(f"YAML {what!r}"[:200], ["train", str(path), "--data", str(place.good / "data"), "--steps=1",
               "--weights=none", "--device=cpu", "--arch=Unet", "--encoder=tu-test_resnet", "--crop=16x24",
               "--batch=2", "network.encoder_depth=3", "network.decoder_channels=[8,8,8]", "train.threads=1",
               "--workers=0", "method.name=supervised"])  # fmt: skip


COMBINATIONS: tuple[dict[str, Any], ...] = (
    {"loss": {"name": "fuzzy"}},  # supervised uses no pseudo labels
    {"optim.warmup": 1},
    {"optim.warmup": 10**6},
    {"method": {"name": "distill"}},
    {"train.sync_batch_norm": True},
    {"train.stop_at": 0},
    *({"method": {"name": "cps"}, "loss": {"name": "fuzzy", "threshold": "adaptive", "adaptive": value}} for value in (
        {"candidates": [0.9, 0.8]}, {"candidates": []}, {"window": 4}, {"window": 100})),
    {"loss.adaptive.candidates": [0.9, 2.0]},
    {"method": {"name": "cps"}, "loss": {"name": "fuzzy", "k_cap": 3}},
    {"method": {"name": "cps"}, "loss": {"name": "fuzzy", "rule": 3}},
    {"method": {"name": "cps", "cutmix": "maybe"}},
    {"method": {"name": "cps", "unknown": 1}},
    {"method": {"name": "nonsense"}},
    {"method": {"name": "Supervised"}},
    {"loss": {"name": "nonsense"}},
    {"supervised.class_weights": [1, 2]},
    {"supervised.class_weights": [0, 0, -1]},
    {"data.bands": [1, 2]},
    {"data.bands": [1, 2, 9]},
    {"network.channels": 5},
    {"network.channels": 2},
    {"data.classes": ["a", "b"]},
    {"data.classes": ["a"]},
    {"data.classes": ["a", "a", "b"]},
    {"data.classes": []},
    {"data.mean": [0.5]},
    {"data.mean": [0.5, 0.5, 0.5, 0.5]},
    {"data.std": [0, 0, 0]},
    {"data.std": [1.0, 1.0]},
    {"data.labelled": "0"},
    {"data.labelled": "-1"},
    {"data.labelled": "7000"},
    {"data.labelled": "1/0"},
    {"data.labelled": "0/4"},
    {"data.labelled": "3/2"},
    {"data.labelled": "every:0"},
    {"data.labelled": "every:x"},
    {"data.labelled": "no/such/list.txt"},
    {"data.labelled": "nan"},
    {"data.val": "fold:0/3"},
    {"data.val": "fold:4/3"},
    {"data.val": "fold:1/1"},
    {"data.val": "fold:a/b"},
    {"data.val": "1.5"},
    {"data.val": "-0.1"},
    {"data.val": "nan"},
    {"data.val": "9999"},
    {"data.val": "folder"},
    {"data.group": "("},
    {"data.group": "(a"},
    {"data.group": "nothing"},
    {"data.layout": "nonsense"},
    {"data.layout": "voc"},
    {"data.layout": "cityscapes"},
    {"data.more": ["no/such/folder"]},
    {"data.unlabelled_from": ["no/such/*.png"]},
    {"data.unlabelled_from": ["no/such/folder"]},
    {"data.description": "no/such.yaml"},
    {"data.scores": "no/such/folder", "method": {"name": "distill"}},
    {"data.root": "no/such/folder"},
    {"data.root": "x" * 300},
    {"data.root": "x/" * 3000},
    {"data.root": "https://example.org/data"},
    {"data.root": "/dev/null"},
    {"init": ["no/such/file.pth"]},
    {"init": ["a", "b", "c"]},
    {"network.weights": "no/such/file.safetensors"},
    {"network.weights": "/dev/null"},
    {"network.arch": "unet"},
    {"network.arch": "os.system"},
    {"network.encoder": "resnet5000"},
    {"network.encoder": "tu-nothing"},
    {"network.encoder": "tu-hf-hub:someone/model"},
    {"network.encoder": "tu-../../etc/passwd"},
    {"network.encoder": ""},
    {"network.output_stride": 8},
    {"network.classes": 7},
    {"network.in_channels": 7},
    {"network.activation": "softmax"},
    {"network.encoder_depth": 99},
    {"network.encoder_depth": -1},
    {"network.encoder_depth": "deep"},
    {"network.decoder_channels": [8]},
    {"network.decoder_channels": "wide"},
    {"network.checkpointing": True},
    {"train.device": "cuda:99"},
    {"train.device": "gpu"},
    {"train.device": "cpu:x"},
    {"train.device": "meta"},
    {"train.batch": 3, "train.accumulate": 2},
    {"train.accumulate": 7},
    {"train.batch": 10**9, "train.accumulate": 3},
    {"seed": 2**63},
    {"seed": 2**64},
    {"out": "/dev/null/run"},
    {"out": "/proc/run"},
    {"out": "x" * 300},
    {"track.to": "mlflow"},
    {"evaluate.scales": []},
    {"evaluate.scales": [0]},
    {"evaluate.scales": [-1.0]},
    {"evaluate.mode": "both"},
    {"augment.scale": [2, 1]},
    {"augment.scale": [0, 1]},
    {"augment.scale": [1]},
    {"augment.scale": [-1, 1]},
    {"data.cache": "disk", "data.cache_dir": "/dev/null/cache"},
)  # fmt: skip


def _combination(place: Place) -> Bad:
    chosen = place.rng.choice(COMBINATIONS)
    recipe = place.recipe()
    for name, value in chosen.items():
        recipe = _merged(recipe, _nested(name, value))
    return Bad(f"combination {chosen}"[:200], place.train(recipe=recipe))
