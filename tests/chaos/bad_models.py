"""Bad run folders (above all checkpoints), model folders and weights."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from chaos.place import Bad, Place, cut, flipped
from fuzzyseg.engine.checkpoint import load, save


class Code:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def draw(place: Place) -> Bad:
    return place.rng.choices((_checkpoint, _run_file, _model, _weights), (6, 2, 5, 2))[0](place)


def _resume(place: Place, run: Path) -> list[str]:
    return ["train", str(run / "config.yaml"), "--out", str(run), "train.stop_at=", "--resume"]


WRONG: tuple[Any, ...] = (5, -1, "text", None, [], {}, [1], {"a": 1}, True, float("nan"), torch.zeros(2), 10**30)


def _checkpoint(place: Place) -> Bad:
    run, rng = place.copy("begun"), place.rng
    path = run / "last.pt"
    content = path.read_bytes()
    kind = rng.choice(("bytes", "instead", "content", "content", "content", "state", "state"))
    if kind == "bytes":
        made = {"truncated": cut(content, rng, most=1), "flipped": flipped(content, rng), "empty": b"",
                "noise": rng.randbytes(3000), "zip": b"PK\x05\x06" + bytes(18), "twice": content + content,
                "longer": content + b"x", "text": b"step: 1"}  # fmt: skip
        what = rng.choice(list(made))
        path.write_bytes(made[what])
    elif kind == "instead":
        path.unlink()
        what = rng.choice(("code", "code in torch's file", "folder", "loop", "module", "tensor", "pickle of a dict"))
        code = Code(f"touch {place.pwned}")
        if what == "code":
            path.write_bytes(pickle.dumps(code))
        elif what == "code in torch's file":
            torch.save({"format": 1, "step": code}, path)
        elif what == "folder":
            path.mkdir()
            return Bad("last.pt: a folder", ["train", str(run / "config.yaml"), "--out", str(run)])
        elif what == "loop":
            path.symlink_to("last.pt")
            return Bad("last.pt: a link to itself", ["train", str(run / "config.yaml"), "--out", str(run)])
        elif what == "pickle of a dict":
            path.write_bytes(pickle.dumps({"format": 1}))
        else:
            torch.save(torch.nn.Linear(2, 2) if what == "module" else torch.zeros(3), path)
    else:
        state = load(path)
        what = _spoil_state(place, state) if kind == "content" else _other_state(place, state)
        save(path, state)
        what = f"{kind}: {what}"
    return Bad(f"last.pt: {what}", _resume(place, run))


def _spoil_state(place: Place, state: dict[str, Any]) -> str:
    """A missing, additional or wrong entry of a checkpoint, somewhere."""
    rng = place.rng
    inner: dict[str, Any] = state
    names: list[str] = []
    key = rng.choice(("format", "step", "modules", "modules", "optimisers", "streams", "config", "scaler", "replicas"))
    while True:
        names.append(key)
        value = inner[key]
        # one process reads no replicas, and fp32 no scaler; a resumed run may change some settings
        closed = names[0] in ("replicas", "scaler") or not isinstance(value, dict) or not value
        if closed or rng.random() < 0.4 or len(names) > 3:
            break
        inner, key = value, rng.choice(list(value) if names != ["config"] else ["optim", "augment", "supervised"])
    where = ".".join(map(str, names))
    if value is None:  # a setting that is not set: nothing and {} mean the same
        inner[key] = "text"
        return f"{where} is 'text'"
    if value != {} and names != ["format"] and rng.random() < 0.3:
        del inner[key]
        return f"{where} is missing"
    wrong = [each for each in WRONG if not _alike(each, value)]
    inner[key] = rng.choice(wrong)
    return f"{where} is {inner[key]!r}"[:120]


def _alike(new: Any, old: Any) -> bool:
    """Whether a new value may be as good as the old one."""
    if isinstance(old, int | float) and isinstance(new, int | float):  # True is 1
        return new == old
    return type(new) is type(old) and not isinstance(new, str | torch.Tensor)


def _other_state(place: Place, state: dict[str, Any]) -> str:
    """The parts of another state: another method's, or of other shapes, or values that are not finite."""
    rng = place.rng
    weights = state["modules"]["method"]
    what = rng.choice(("method", "whole", "shape", "nan", "type", "steps", "settings", "optimisers", "format"))
    name = rng.choice([name for name, value in weights.items() if value.dim() > 0])
    if what in ("method", "whole"):
        other = load(place.good / "other" / "last.pt")
        state["modules"] = other["modules"]
        if what == "whole":
            state |= other
    elif what == "shape":
        weights[name] = torch.zeros(rng.randint(1, 4), 7)
    elif what == "nan":
        weights[name] = torch.full_like(weights[name], rng.choice((float("nan"), float("inf"))))
    elif what == "type":
        weights[name] = weights[name].tolist()
    elif what == "steps":
        state["step"] = rng.choice((3, 10**9, -1, -(10**9)))
    elif what == "settings":
        state["config"]["optim"]["lr"] = 7.0
    elif what == "optimisers":
        state["optimisers"] = rng.choice(([], state["optimisers"] * 2, [{}], [{"state": {}, "param_groups": []}], [5]))
    else:
        state["format"] = rng.choice((0, 2, "1", None, 10**9))
    return what


def _run_file(place: Place) -> Bad:
    """A damaged file of the run beside the checkpoint."""
    run, rng = place.copy("begun"), place.rng
    name = rng.choice(("split.json", "metrics.jsonl", "config.yaml", "environment.json"))
    path = run / name
    text = path.read_text()
    made: dict[str, str | None] = {"missing": None, "number": "5", "list": "[1]", "noise": "\x00\x01"}
    made["deep"] = "[" * 9000
    if name == "environment.json":
        del made["missing"]  # nothing depends on it
    if name == "split.json":
        value = json.loads(text)
        key = rng.choice(("hash", "input", "labelled", "val"))
        made |= {"truncated": text[: rng.randrange(1, len(text) - 3)], "empty": "",
                 f"no {key}": json.dumps({k: v for k, v in value.items() if k != key}),
                 f"wrong {key}": json.dumps(value | {key: rng.choice((5, "x", [5], None, {"a": "b"}))})}  # fmt: skip
    elif name == "metrics.jsonl":
        made = {"damaged line": '{"step": \n' + text, "no step": '{"a": 1}\n' + text, "text": "x\n" + text,
                "list": "[1]\n" + text, "step": '{"step": "x"}\n' + text}  # fmt: skip
    elif name == "config.yaml":
        made |= {"unknown key": text + "\nnonsense: 1\n", "cut": text[: len(text) // 2] + "\n: ["}
    what = rng.choice(list(made))
    content = made[what]
    path.unlink()
    if content is not None:
        path.write_text(content)
    return Bad(f"{name}: {what}", _resume(place, run))


def _use(place: Place, model: Path) -> list[str]:
    """A command that loads the model."""
    images, out, data = place.good / "data" / "images" / "val", place.folder / "results", place.good / "data"
    return place.rng.choice((
        ["predict", str(model), str(images), "--out", str(out), "--device", "cpu"],
        ["evaluate", str(model), "--data", str(data), "--device", "cpu"],
        ["export", str(model), "--format", "smp", "--out", str(out), "--data", str(data)],
        ["suggest", str(model), str(images), "--out", str(out), "--count", "1"],
    ))  # fmt: skip


CARD: dict[str, tuple[Any, ...]] = {
    "classes": (5, [], ["a"], [1, 2, 3], None, "abc", {"a": 1}, ["a", "b"], ["a", "b", "c", "d"]),
    "mean": (5, [], [0.5], ["a", "b", "c"], None, [None] * 3, [0.1] * 4),
    "std": (5, [], [0.5], [0, 0, 0], [-1, 1, 1], None, ["x"] * 3),
    "crop": (5, [], [0, 0], [-1, 5], None, "16x24", [1, 2, 3], [1.5, 2]),
    "channels": (0, -1, "3", None, 4, 1, 10**9, 1.5),
    "image_size": (5, [0, 1], [-1, -1], "x", [1]),
    "bands": (5, [0], [-1], "x", ["a"]),
    "ignore_index": ("x", None, [255], 1.5),
    "temperature": (0, -1, "x", None, [1]),
    "step": ("x", None, [1]),
    "encoding": (5, "colour", {"colours": 5}, {"table": [[1, "x"]]}, {"snap": "x"}, [1]),
    "colours": (5, [[1]], [["a", 1, 2]], "x"),
    "levels": (5, "x", {"low": 1}, {"high": ["x"]}, [1]),
}
"""Values that a model card cannot have."""

NETWORKS: dict[str, tuple[Any, ...]] = {
    "_model_class": ("os.system", "../../Unet", 5, None, "unet", "Unet\0", "__import__", [], "nn.Module"),
    "encoder_name": ("nonsense", 5, None, "../../etc/passwd", "tu-", "tu-hf-hub:a/b", [], "tu-../x", "tu-test_vit"),
    "encoder_depth": (99, -1, "x", None, 5),
    "in_channels": (0, -1, "x", 4),
    "classes": (0, -1, "x", None, 7),
    "decoder_channels": (5, "x", [], [8], [8, 8, 80], [-8, 8, 8], None),
    "nonsense": (1,),
    "pretrained": (True,),
    "pretrained_cfg": ({"url": "http://localhost:1/x"},),
    "checkpoint_path": ("/etc/passwd",),
    "activation": ("nonsense",),
}


def _model(place: Place) -> Bad:
    rng = place.rng
    run = place.copy("run")
    model, kind = run / "model", rng.choice(("card", "card", "config", "file", "file", "tensors"))
    if kind == "card":
        path, table = model / "fuzzyseg.json", CARD
    elif kind == "config":
        path, table = model / "config.json", NETWORKS
    if kind in ("card", "config"):
        values = json.loads(path.read_text())
        key = rng.choice(list(table))
        values[key] = rng.choice(table[key])
        if rng.random() < 0.1 and key in ("classes", "mean", "std", "crop", "_model_class", "encoder_name"):
            del values[key]
        what = f"{path.name}: {key} {values.get(key, 'is missing')!r}"
        path.write_text(json.dumps(values))
    elif kind == "tensors":
        what = _spoil_tensors(place, model / "model.safetensors")
    else:
        what = _spoil_file(place, model)
    return Bad(what, _use(place, rng.choice((model, run))))


def _spoil_tensors(place: Place, path: Path) -> str:
    rng, state = place.rng, load_file(path)
    path.with_name(path.name + ".sha256").unlink()
    name = rng.choice([name for name, value in state.items() if value.dim() > 0])
    what = rng.choice(("missing", "shape", "renamed", "header", "length", "more"))
    if what == "missing":
        del state[name]
    elif what == "shape":
        state[name] = torch.zeros(3, 1, 4)
    elif what == "renamed":
        state["other"] = state.pop(name)
    elif what == "more":
        state = {f"other.{key}": value for key, value in state.items()}
    if what in ("header", "length"):
        content = path.read_bytes()
        head = {"header": content[:8] + b"{" * 200, "length": struct.pack("<Q", 2**62)}[what]
        path.write_bytes(head + content[len(head) :])
    else:
        save_file(state, path)
    return f"weights: {what} {name}"


def _spoil_file(place: Place, model: Path) -> str:
    rng = place.rng
    path = model / rng.choice(("fuzzyseg.json", "config.json", "model.safetensors", "model.safetensors"))
    content = path.read_bytes()
    path.unlink()
    json_file = path.suffix == ".json"
    made: dict[str, bytes | None] = {
        "missing": None, "empty": b"", "truncated": cut(content, rng, most=0.9), "noise": rng.randbytes(300),
        "flipped": flipped(content, rng) if not json_file else b"{", "list": b"[1, 2]", "null": b"null",
        "deep": b"[" * 9000, "pickle": pickle.dumps(Code(f"touch {place.pwned}")),
        "long number": b'{"a": ' + b"9" * 5000 + b"}", "HTML": b"<html></html>",
        "surrogate": b'{"classes": ["\\ud800", "b", "c"]}', "bom": b"\xff\xfe" + content,
    }  # fmt: skip
    what = rng.choice([*made, "folder", "loop"])
    if what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif (new := made[what]) is not None:
        path.write_bytes(new)
    return f"{path.name}: {what}"


def _weights(place: Place) -> Bad:
    """Files for `--init` and `--weights`."""
    rng, good = place.rng, place.good / "run" / "model" / "model.safetensors"
    code = Code(f"touch {place.pwned}")
    suffix = rng.choice((".pth", ".pt", ".bin", ".safetensors", ""))
    path = place.folder / f"weights{suffix}"
    content = good.read_bytes()
    made: dict[str, Callable[[], Any]] = {
        "code": lambda: path.write_bytes(pickle.dumps(code)),
        "code in a state": lambda: torch.save({"state_dict": {"a": code}}, path),
        "code beside a state": lambda: torch.save({"state_dict": load_file(good), "extra": code}, path),
        "module": lambda: torch.save(torch.nn.Linear(2, 2), path),
        "tensor": lambda: torch.save(torch.zeros(2), path),
        "numbers": lambda: torch.save({"a": 1}, path),
        "empty state": lambda: torch.save({}, path),
        "others": lambda: torch.save({"a": torch.zeros(2)}, path),
        "nested": lambda: torch.save({"model": {"model": {"model": {"model": {"model": 5}}}}}, path),
        "empty": lambda: path.write_bytes(b""),
        "noise": lambda: path.write_bytes(rng.randbytes(500)),
        "truncated": lambda: path.write_bytes(cut(content, rng)),
        "HTML": lambda: path.write_bytes(b"  <!doctype html>"),
        "LFS": lambda: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "folder": lambda: path.mkdir(),
        "loop": lambda: path.symlink_to(path.name),
        "length": lambda: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"),
        "deep": lambda: path.write_bytes(struct.pack("<Q", 9000) + b"[" * 9000),
    }
    what = rng.choice(list(made))
    made[what]()
    option = "--init" if rng.random() < 0.5 else "--weights"
    return Bad(f"{option} {path.name}: {what}", place.train(f"{option}={path}"))
