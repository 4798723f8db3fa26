from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def isa() -> str: ...
def isas() -> dict[str, bool]: ...

# The augmentation: csrc/binding/augment.cpp.

def philox(
    counter: tuple[int, int, int, int], key: tuple[int, int], /
) -> tuple[int, int, int, int]: ...
def sample_warps(
    index: NDArray[np.int64],
    *,
    epoch: int,
    size: tuple[int, int],
    out_size: tuple[int, int],
    rotation: float,
    shear: float,
    shift: tuple[float, float],
    zoom: tuple[float, float],
    flip: tuple[bool, bool],
    padding: int,
    seed: int,
) -> NDArray[np.float64]: ...
def largest_stretch(matrices: NDArray[np.float64]) -> float: ...
def warp(
    *,
    images: NDArray[np.generic],
    rows: NDArray[np.int64] | None,
    matrices: NDArray[np.float64],
    out: NDArray[np.generic],
    fill: str,
    bilinear: bool,
    mean: Sequence[float] | None,
    std: Sequence[float],
    cval: float,
    outside: int,
) -> None: ...
