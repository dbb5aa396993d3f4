"""Train the network that counts nuclei, and write its pack.

``python -m hrviewer_histology.train DATA_FOLDER`` learns from the train split, reports on the val
split and writes ``main.safetensors`` and ``pack.json``. Interrupted, it goes on from its
checkpoint; with the same seed and threads it comes to the same weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hrviewer.models.architectures import ARCHITECTURES, DensityUNet
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Subset

from hrviewer_histology import nuclei
from hrviewer_histology.photos import Photo, read_photos, shrink
from hrviewer_histology.stains import Fields

__all__ = ["MEAN", "STD", "estimate", "load", "main", "measure"]

MEAN, STD = (0.7, 0.6, 0.7), (0.2, 0.25, 0.2)
PARAMS: dict[str, Any] = {"classes": 1, "widths": [24, 48, 72, 96], "blocks": [1, 2, 2]}
SCALES = (1, 2, 4)
"""By how much val photos are shrunk before they are counted."""


def normalised(rgb: Tensor) -> Tensor:
    """Make of pixels from 0 to 1 ``(…, 3, h, w)`` what the network takes in."""
    mean, std = (torch.tensor(v, dtype=rgb.dtype).view(3, 1, 1) for v in (MEAN, STD))
    return ((rgb - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def estimate(network: nn.Module, rgb: Tensor) -> Tensor:
    """Return the density ``(h/4, w/4)`` of one image ``(3, h, w)`` from 0 to 1."""
    density: Tensor = network.eval()(normalised(rgb[None]))
    return density[0, 0]


def measure(network: nn.Module, photos: Iterable[Photo], factor: int = 1) -> dict[str, float]:
    """Count every photo shrunk by `factor`; return the mean absolute error, also over the mean."""
    pairs = np.array(
        [(float(estimate(network, shrink(p.layers[:3], factor)).sum()), p.count) for p in photos]
    )
    error = pairs[:, 0] - pairs[:, 1]
    mae, mean = float(np.abs(error).mean()), float(pairs[:, 1].mean())
    return {
        "mae": round(mae, 2),
        "mae_over_mean": round(mae / mean, 4),
        "bias_over_mean": round(float(error.mean()) / mean, 4),
    }


@torch.no_grad()
def calibrate(network: DensityUNet, photos: Sequence[Photo]) -> float:
    """Scale the last layer so that counts of unseen photos, whole and halved, are right in sum.

    What was not seen in training is missed more often than what was; one number makes up for it.
    """
    found = sum(
        float(estimate(network, shrink(p.layers[:3], k)).sum()) for p in photos for k in SCALES[:2]
    )
    gain = 2 * sum(p.count for p in photos) / found
    for parameter in network.head.parameters():
        parameter.mul_(gain)
    return gain


def loss(output: Tensor, target: Tensor) -> Tensor:
    """Squared error of the counts in windows of 4 to 160 pixels, each over what is expected there.

    A count of chance events varies as its mean, so an error is weighed by the count plus a little.
    That is the estimate's own: weighed by the target's, doubt would pull every count down.
    """
    total = output.new_zeros(())
    for window, weight, little in ((1, 2.0, 0.03), (4, 0.5, 0.15), (10, 0.4, 0.4), (40, 0.3, 1.5)):
        area = window * window
        found, there = (F.avg_pool2d(x, window) * area for x in (output, target))
        total = total + weight * ((found - there) ** 2 / (found.detach() + little)).mean()
    return total


@torch.no_grad()
def _average(
    mean: tuple[Tensor, ...] | list[Tensor],
    now: tuple[Tensor, ...] | list[Tensor],
    count: Tensor | int,
) -> None:
    """Move the mean towards what is now, slower and slower, at last by 1 part in 400."""
    share = max(1 / 400, 5 / (float(count) + 6))
    for a, b in zip(mean, now, strict=True):
        a.copy_(a + (b - a) * share if a.is_floating_point() else b)


def train(
    photos: Sequence[Photo],
    judges: Sequence[Photo],
    checkpoint: Path,
    *,
    steps: int,
    seed: int,
    rate: float = 3e-3,
    every: int = 500,
) -> tuple[DensityUNet, float]:
    """Train, from `checkpoint` if it exists; return the averaged network and the minutes spent."""
    torch.manual_seed(seed)
    network = DensityUNet(**PARAMS)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=_average, use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.05)
    parts: dict[str, Any] = {
        "network": network,
        "average": average,
        "optimizer": optimizer,
        "schedule": schedule,
    }
    start, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["run"] != [steps, seed]:
            raise SystemExit(f"{checkpoint} is of another run: remove it, or name another")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        start, spent = state["step"], state["spent"]

    fields = Subset(Fields(photos, steps, seed=seed), range(start, steps))
    since, recent = time.monotonic(), 0.0
    batches = DataLoader(fields, batch_size=None, num_workers=1, prefetch_factor=8)
    for step, (rgb, target) in enumerate(batches, start=start + 1):
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            output = network(normalised(rgb))
        value = loss(output.float(), target)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
        recent += (value.item() - recent) * max(0.01, 1 / (step - start))
        if step % every == 0 or step == steps:
            minutes = spent + (time.monotonic() - since) / 60
            scores = [measure(average.module, judges, k)["mae_over_mean"] for k in SCALES]
            shown = " ".join(f"1/{k} {s:.1%}" for k, s in zip(SCALES, scores, strict=True))
            print(
                f"step {step}/{steps}  {minutes:.1f} min  loss {recent:.4f}  val error {shown}",
                file=sys.stderr,
                flush=True,
            )
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"run": [steps, seed], "step": step, "spent": minutes}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    network.load_state_dict(average.module.state_dict())
    return network.eval(), spent + (time.monotonic() - since) / 60


def write_pack(
    out: Path, network: nn.Module, metrics: dict[str, Any], training: dict[str, Any]
) -> None:
    """Write the weights and the pack's description, which says what they are and can do."""
    out.mkdir(parents=True, exist_ok=True)
    weights = out / "main.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, weights)
    card = {
        "name": "nuclei-density",
        "title": "Nuclei, a density network",
        "task": "density",
        "input": {
            "channels": "rgb",
            "scale": 1 / 255,
            "mean": MEAN,
            "std": STD,
            "tile": 512,
            "multiple_of": 16,
            "fixed": False,
            "pixel_size": 0.5,
        },
        "output": {
            "stride": 4,
            "halo": network.halo,
            "classes": ["nucleus"],
            "activation": "none",
        },
        "architecture": {"name": "density-unet", "params": PARAMS},
        "licence": "BSD-3-Clause",
        "citation": "Trained on the histology photos of the 2018 Data Science Bowl (BBBC038, CC0): "
        "Caicedo et al., Nucleus segmentation across imaging experiments, Nature Methods 2019.",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "training": training,
        "metrics": metrics,
    }
    pack = {
        "name": "nuclei",
        "title": "Nuclei in histology",
        "description": "Counts nuclei in bright-field histology at about 0.5 µm per pixel.",
        "roles": {"main": {"weights": weights.name, "card": card}},
    }
    text = json.dumps(pack, indent=2, ensure_ascii=False)
    (out / "pack.json").write_text(text + "\n", encoding="utf-8")


def load(folder: Path) -> nn.Module:
    """Read a pack's network."""
    main = json.loads((folder / "pack.json").read_text(encoding="utf-8"))["roles"]["main"]
    architecture = main["card"]["architecture"]
    network = ARCHITECTURES[architecture["name"]](**architecture["params"])
    network.load_state_dict(load_file(folder / main["weights"]))
    return network.eval()


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m hrviewer_histology.train", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with index.csv, photos and labels")
    parser.add_argument("--out", type=Path, default=nuclei(), help="where the pack is written")
    parser.add_argument("--checkpoint", type=Path, default=Path("nuclei.checkpoint"))
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="beside the one that makes fields")
    args = parser.parse_args(argv)

    torch.set_num_threads(args.threads)
    photos, judges = (read_photos(args.data, split) for split in ("train", "val"))
    network, minutes = train(photos, judges, args.checkpoint, steps=args.steps, seed=args.seed)
    raw = measure(network, judges)
    gain = calibrate(network, judges)
    metrics = {
        "what": "mean absolute error of the counts of the val photos, shrunk 1, 2 and 4 times",
        "photos": len(judges),
        "nuclei": sum(p.count for p in judges),
        "gain": round(gain, 4),
        "val_1_before_gain": raw,
    } | {f"val_{k}": measure(network, judges, k) for k in SCALES}
    training = {
        "data": "histology photos of the 2018 Data Science Bowl (BBBC038), CC0",
        "split": f"train, {len(photos)} photos, {sum(p.count for p in photos)} nuclei",
        "seed": args.seed,
        "steps": args.steps,
        "minutes": round(minutes, 1),
        "threads": args.threads,
        "command": "python -m hrviewer_histology.train DATA_FOLDER"
        f" --steps {args.steps} --seed {args.seed} --threads {args.threads}",
    }
    write_pack(args.out, network, metrics, training)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
