"""Augmentation against what else does it, on this machine.

Rotation by 15 degrees, shifts by 10 %, shear by 10 degrees, zoom by 10 %, horizontal flip: uint8 (N, H, W, C) in,
normalised float32 (N, C, H, W) out. All candidates run in one process, one after the other in every round; the factor
is the median over rounds of a candidate's time divided by ours in the same round.

Targets: 2.5 times the best of the others at 28 x 28 and 32 x 32, 1.3 times at 224 x 224, 25 times Keras at 28 x 28,
300 000 pictures of 28 x 28 per second and core through a DataLoader.

    python benchmarks/augment.py [--rounds 15] [--threads 1 2] [--json results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import torch
from torch.nn import functional

from onepass.augment import AugmentedDataset, Augmenter

MEAN, STD = 0.45, 0.225
CASES = [(28, 1, 256), (32, 3, 256), (224, 3, 32)]
AUG = Augmenter(15, 0.1, 0.1, 10, 0.1, True, mean=MEAN, std=STD)

Batch = np.ndarray[Any, np.dtype[np.uint8]]
Candidate = Callable[[int], Any]  # of the round's number


def onepass_call(images: Batch) -> Candidate:
    return lambda epoch: AUG(images, range(len(images)), epoch)


def cv2_loop(images: Batch) -> Candidate:
    """The loop that one writes by hand: the same matrices, one warpAffine each, normalised together."""
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    size = (images.shape[2], images.shape[1])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    scale, shift = np.float32(1 / (255 * STD)), np.float32(-MEAN / STD)

    def run(epoch: int) -> torch.Tensor:
        matrices = AUG.sample(range(len(images)), epoch, (size[1], size[0])).numpy()
        warped = np.empty_like(images)
        for k, image in enumerate(images):
            cv2.warpAffine(
                image, matrices[k], size, warped[k], flags, borderMode=cv2.BORDER_REPLICATE
            )
        out = np.multiply(warped.transpose(0, 3, 1, 2), scale, dtype=np.float32, order="C")
        out += shift
        return torch.from_numpy(out)

    return run


def grid_sample(images: Batch) -> Candidate:
    """Torch's own, the whole batch at once, from the same matrices."""
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    height, width = nchw.shape[2:]
    to_pixels = torch.tensor([[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2]])
    to_pixels = torch.cat([to_pixels, torch.tensor([[0, 0, 1.0]])]).double()
    to_unit = torch.linalg.inv(to_pixels)

    def run(epoch: int) -> torch.Tensor:
        matrices = AUG.sample(range(len(nchw)), epoch, (height, width))
        theta = to_unit[:2, :2] @ matrices @ to_pixels
        theta[:, :, 2] += to_unit[:2, 2]
        grid = functional.affine_grid(theta.float(), list(nchw.shape), align_corners=False)
        values = nchw.to(torch.float32, memory_format=torch.contiguous_format)
        warped = functional.grid_sample(values, grid, padding_mode="border", align_corners=False)
        return warped.mul_(1 / (255 * STD)).sub_(MEAN / STD)

    return run


def kornia_sequential(images: Batch) -> Candidate:
    from kornia import augmentation

    channels = images.shape[3]
    steps = augmentation.AugmentationSequential(
        augmentation.RandomAffine(15, (0.1, 0.1), (0.9, 1.1), 10, padding_mode="border", p=1.0),
        augmentation.RandomHorizontalFlip(p=0.5),
        augmentation.Normalize(torch.full((channels,), MEAN), torch.full((channels,), STD)),
    )
    nchw = torch.from_numpy(images).permute(0, 3, 1, 2)
    return lambda _epoch: steps(nchw.float() / 255)


def albumentations_compose(images: Batch) -> Candidate:
    import albumentations
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    channels = images.shape[3]
    steps = albumentations.Compose(
        [
            albumentations.Affine(
                rotate=(-15, 15),
                translate_percent=(-0.1, 0.1),
                shear=(-10, 10),
                scale=(0.9, 1.1),
                border_mode=cv2.BORDER_REPLICATE,
                p=1,
            ),
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Normalize((MEAN,) * channels, (STD,) * channels),
        ]
    )

    def run(_epoch: int) -> torch.Tensor:
        batch = np.stack([steps(image=image)["image"].transpose(2, 0, 1) for image in images])
        return torch.from_numpy(batch)

    return run


def keras_generator(images: Batch) -> Candidate:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(
        rotation_range=15,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=10,
        zoom_range=0.1,
        horizontal_flip=True,
        preprocessing_function=lambda x: (x / 255 - MEAN) / STD,
    )
    batches = generator.flow(images, batch_size=len(images), shuffle=False)
    return lambda _epoch: torch.from_numpy(
        np.ascontiguousarray(next(batches).transpose(0, 3, 1, 2))
    )


PEERS: dict[str, Callable[[Batch], Candidate]] = {
    "onepass": onepass_call,
    "cv2.warpAffine + numpy": cv2_loop,
    "torch grid_sample": grid_sample,
    "kornia": kornia_sequential,
    "albumentations": albumentations_compose,
    "Keras ImageDataGenerator": keras_generator,
}


def agree(candidates: dict[str, Candidate], shape: tuple[int, ...]) -> None:
    """Those that warp by our matrices must give our pictures; all must give the shape."""
    ours = candidates["onepass"](0)
    for name, run in candidates.items():
        out = run(0)
        assert out.shape == shape, (name, out.shape)
        assert out.dtype == torch.float32, (name, out.dtype)
        if name.startswith(("torch", "cv2")):
            # cv2 rounds to uint8 and places to 1/32 of a pixel: a few grey levels where noise is steepest.
            tolerance = 1e-3 if name.startswith("torch") else 8 / (255 * STD)
            assert (out - ours).abs().max() < tolerance, (name, (out - ours).abs().max())


def measure(side: int, channels: int, count: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round of every candidate that is installed."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, channels), np.uint8)
    candidates = {}
    for name, make in PEERS.items():
        try:
            candidates[name] = make(images)
        except ImportError:
            print(f"{name}: not installed")
    agree(candidates, (count, channels, side, side))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for epoch in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run(epoch)
            times[name].append(time.perf_counter() - start)
    return times


def loader_rate(rounds: int) -> tuple[float, float]:
    """Pictures of 28 x 28 per second, and per second of processor time, through a DataLoader in this process."""
    images = torch.randint(0, 256, (20000, 28, 28, 1), dtype=torch.uint8)
    dataset = AugmentedDataset(images, torch.zeros(20000, dtype=torch.int64), AUG)
    loader = dataset.loader(256, shuffle=True)
    walls, processors = [], []
    for epoch in range(rounds):
        dataset.set_epoch(epoch)
        start, processor = time.perf_counter(), time.process_time()
        seen = sum(len(batch) for batch, _ in loader)
        walls.append(seen / (time.perf_counter() - start))
        processors.append(seen / (time.process_time() - processor))
    return statistics.median(walls), statistics.median(processors)


def main() -> None:
    parser = argparse.ArgumentParser(description="Augmentation against what else does it.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for side, channels, count in CASES:
            times = measure(side, channels, count, arguments.rounds)
            print(f"\n{side} x {side} x {channels}, batches of {count}, {threads} thread(s)")
            for name, seconds in times.items():
                rate = count / statistics.median(seconds)
                pairs = zip(seconds, times["onepass"], strict=True)
                factor = statistics.median(other / ours for other, ours in pairs)
                print(f"  {name:26} {rate:10,.0f} pictures/s   {factor:6.2f} times our time")
                results.append(
                    {
                        "threads": threads,
                        "side": side,
                        "channels": channels,
                        "candidate": name,
                        "pictures_per_second": rate,
                        "factor": factor,
                    }
                )
        rate, per_core = loader_rate(max(3, arguments.rounds // 3))
        print(f"\nDataLoader, whole batches of 256, 28 x 28, {threads} thread(s):")
        print(f"  {rate:,.0f} pictures/s, {per_core:,.0f} per second of one core")
        results.append(
            {
                "threads": threads,
                "candidate": "DataLoader",
                "pictures_per_second": rate,
                "per_core": per_core,
            }
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
