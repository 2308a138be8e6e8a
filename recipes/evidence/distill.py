"""Distillation on CamVid: soft labels, hard labels and fuzzy sets of one teacher, against labels alone.

    python recipes/evidence/distill.py CAMVID MOBILENET_V2 EFFICIENTNET_LITE0 WORK results/evidence/distill

CAMVID: the data set's folder. The two weights are ImageNet's. WORK: a folder for the runs, which are resumed. The
teacher is DeepLabV3+ with EfficientNet-Lite0, trained with FixMatch and FPL on 46 labels; the students are an FPN with
MobileNetV2 and a narrow decoder, of three seeds. Writes one row per student, with sizes and times of both networks.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from fuzzyseg import load, train
from fuzzyseg.experiment.distill import defaults, distill

LABELS = {"supervised": None, "soft": "soft", "hard": "hard", "fuzzy": "fuzzy"}
TRAINING = {
    "optim.name": "adamw", "optim.lr": 5e-4, "optim.weight_decay": 1e-4, "train.batch": 4, "train.workers": 0,
    "train.tensorboard": False, "train.eval_every": 10_000, "augment.scale": [0.75, 1.5],
}  # fmt: skip


def measure(networks: dict[str, torch.nn.Module], repeats: int = 30) -> dict[str, dict[str, float]]:
    """Parameters, and the median milliseconds of an image of 128x160 on one thread; the networks alternate."""
    torch.set_num_threads(1)
    image, times = torch.rand(1, 3, 128, 160), {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(repeats):
            for name, network in networks.items():
                start = time.perf_counter()
                network(image)
                times[name].append(1000 * (time.perf_counter() - start))
    return {
        name: {
            "parameters": sum(p.numel() for p in network.parameters()),
            "milliseconds": sorted(times[name])[repeats // 2],
        }
        for name, network in networks.items()
    }


def main() -> None:
    """Train the teacher, then the students, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("camvid", "mobilenet", "efficientnet", "work", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    teacher = given.work / "teacher"
    if not (teacher / "result.json").exists():
        train(
            {"data.root": str(given.camvid), "data.labelled": "46", "data.image_size": [128, 160]} | TRAINING,
            method="fixmatch", loss="fuzzy", arch="DeepLabV3Plus", encoder="tu-tf_efficientnet_lite0",
            weights=str(given.efficientnet), crop=[96, 128], steps=given.steps, out=str(teacher), resume=True,
            **{"loss.threshold": 0.9, "network.decoder_aspp_dropout": 0},
        )  # fmt: skip
    for seed in range(given.seeds):
        for name, loss in LABELS.items():
            run = given.work / f"{name}-{seed}"
            row = given.out / f"{name}-{seed}.json"
            if row.exists():
                continue
            values = {
                "arch": "FPN", "encoder": "mobilenet_v2", "weights": str(given.mobilenet), "steps": given.steps,
                "seed": seed, "out": str(run), "resume": True, "network.decoder_pyramid_channels": 64,
                "network.decoder_segmentation_channels": 32, "network.decoder_dropout": 0,
            } | TRAINING  # fmt: skip
            if loss is None:
                result = train(defaults(teacher), method="supervised", **values).result
            else:
                result = distill(teacher, defaults(teacher), labels=given.work / "labels", loss=loss, **values).result
            scored = json.loads((teacher / "result.json").read_text())
            sizes = measure({"teacher": load(teacher).network.eval(), "student": load(run).network.eval()})
            given.out.mkdir(parents=True, exist_ok=True)
            scores = {"student": result["last"], "teacher": scored["last"]}
            content = {"labels": name, "seed": seed, "scores": scores, "networks": sizes}
            row.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
