"""Trained networks exported to ONNX: agreement with PyTorch, and the time of an image in both.

    python benchmarks/export.py CAMVID WORK --weights MOBILENET_V2 --out results/export.json

Trains each network for 200 steps on CamVid (untrained networks have ties), exports it and compares it on 50 validation
images of 360x480, of which the first ten are also cut to 3/4 and 1/2; DPT at its training crop, in windows. The times
are medians over images of 360x480 (DPT: its crop) on `--threads` threads, PyTorch and onnxruntime in turn. WORK: a
folder for the runs. --weights: of MobileNetV2; the other encoders start from random weights. Rows that the file --out
has are not measured again.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from fuzzyseg import load, train
from fuzzyseg.experiment import export

NETWORKS = {
    "DeepLabV3+, MobileNetV2": ("DeepLabV3Plus", "mobilenet_v2"),
    "DeepLabV3+, ResNet-18": ("DeepLabV3Plus", "resnet18"),
    "FPN, MobileNetV2": ("FPN", "mobilenet_v2"),
    "Unet, ResNet-18": ("Unet", "resnet18"),
    "SegFormer, MiT-B0": ("Segformer", "mit_b0"),
    "DPT, ViT-Tiny": ("DPT", "tu-vit_tiny_patch16_224"),
}


def times(run: Path, file: Path, size: tuple[int, int], threads: int, repeats: int = 15) -> dict[str, float]:
    """Median milliseconds of an image of a size in PyTorch and in onnxruntime, which alternate."""
    torch.set_num_threads(threads)
    predictor, options = load(run), onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 255, (1, 3, *size), dtype=np.uint8)
    calls = {
        "torch": lambda: predictor.batch_labels(torch.from_numpy(image)),
        "onnxruntime": lambda: session.run(["labels"], {"image": image}),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name].append(1000 * (time.perf_counter() - start))
    return {name: sorted(values)[repeats // 2] for name, values in found.items()}


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train, export and time a network."""
    arch, encoder = NETWORKS[name]
    run = given.work / f"{arch}-{encoder}"
    crop = (128, 160) if arch != "DPT" else (224, 224)
    weights = str(given.weights) if encoder == "mobilenet_v2" and given.weights else "none"
    if not (run / "result.json").exists():
        options = {
            "data.labelled": "92", "train.batch": 4, "train.workers": 0, "train.evaluate": False,
            "train.tensorboard": False, "augment.scale": [0.4, 0.7], "optim.name": "adamw", "optim.lr": 5e-4,
        }  # fmt: skip
        named = {"arch": arch, "encoder": encoder, "weights": weights, "crop": crop, "steps": given.steps}
        train(options, data=given.camvid, method="supervised", **named, out=str(run), resume=True)
    out, agreement = export(run, out=run / "onnx", images=50)
    size = (360, 480) if arch != "DPT" else crop
    return asdict(agreement) | {"size_timed": size, "milliseconds": times(run, out / "model.onnx", size, given.threads)}


def main() -> None:
    """Measure all networks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    setting = {"steps": given.steps, "threads": given.threads}
    known = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    rows: dict[str, Any] = known if setting.items() <= known.items() else {}
    print("| network | identical labels | largest difference of logits | sizes | torch, ms | onnxruntime, ms |")
    print("|---|---|---|---|---|---|")
    for name in NETWORKS:
        row = rows[name] = rows.get(name) or measure(name, given)
        sizes = ", ".join("x".join(map(str, size)) for size in row["sizes"])
        spent = row["milliseconds"]
        print(
            f"| {name} | {100 * row['equal']:.4f} % | {row['largest']:.1e} | {sizes} | {spent['torch']:.0f} | "
            f"{spent['onnxruntime']:.0f} |",
            flush=True,
        )
        if given.out:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(setting | rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
