"""The same warp in torch's own operations, for pictures on a GPU; runs on any device that has float64."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Places in the picture that are computed at a time: some 100 MB of temporaries.
_CHUNK = 1 << 21


def warp_images(
    images: Tensor,
    matrices: Tensor,
    size: tuple[int, int],
    *,
    fill: str,
    bilinear: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    cval: float,
) -> Tensor:
    """Warp uint8 or float32 images (N, C, H, W) to normalised float32 (N, C, *size)."""

    def normalise(values: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        values = values / 255 if images.dtype == torch.uint8 else values
        return (values - values.new_tensor(mean).view(shape)) / values.new_tensor(std).view(shape)

    out = images.new_empty((len(images), images.shape[1], *size), dtype=torch.float32)
    for part in _parts(len(images), size):
        x, y, inside = _places(matrices[part], size, images.shape[-2:], fill, bilinear)
        if bilinear:
            values = _interpolate(images[part].to(torch.float32), x, y)
        else:
            values = _pick(images[part], x, y).to(torch.float32)
        values = normalise(values)
        if fill == "constant":
            outside = normalise(values.new_full((1, values.shape[1], 1, 1), cval))
            values = torch.where(inside[:, None], values, outside)
        out[part] = values
    return out


def warp_masks(
    masks: Tensor, matrices: Tensor, size: tuple[int, int], *, fill: str, outside: Tensor
) -> Tensor:
    """Move values of masks (N, C, H, W) of whole numbers; `outside` is the constant fill."""
    out = masks.new_empty((len(masks), masks.shape[1], *size))
    for part in _parts(len(masks), size):
        x, y, inside = _places(matrices[part], size, masks.shape[-2:], fill, bilinear=False)
        values = _pick(masks[part], x, y)
        if fill == "constant":
            values = torch.where(inside[:, None], values, outside.to(values))
        out[part] = values
    return out


def _parts(count: int, size: tuple[int, int]) -> list[slice]:
    step = max(1, _CHUNK // (size[0] * size[1]))
    return [slice(start, start + step) for start in range(0, count, step)]


def _places(
    matrices: Tensor, size: tuple[int, int], input_size: torch.Size, fill: str, bilinear: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Places (x, y) in the picture, each (N, *size), and whether they were in it before the fill mode."""
    rows = torch.arange(size[0], device=matrices.device, dtype=torch.float64)[:, None]
    columns = torch.arange(size[1], device=matrices.device, dtype=torch.float64)
    m = matrices[:, :, :, None, None]
    inside = torch.ones((), dtype=torch.bool, device=matrices.device)
    places = []
    for axis, length in ((0, input_size[1]), (1, input_size[0])):
        place = (m[:, axis, 2] + m[:, axis, 1] * rows) + m[:, axis, 0] * columns
        inside = inside & (place >= 0) & (place <= length - 1)
        places.append(_fold(place, length - 1, fill, bilinear).nan_to_num(0.0).clamp(0, length - 1))
    return places[0], places[1], inside


def _fold(place: Tensor, last: int, fill: str, bilinear: bool) -> Tensor:
    """As `fold` in csrc/augment/coordinates.hpp."""
    if fill == "reflect":
        period = 2 * last + 2
        a = torch.where(place < 0, -1 - place, place)
        a = a - period * torch.floor(a / period)
        return torch.where(a > last, period - 1 - a, a)
    if fill == "mirror":
        period = max(2 * last, 1)
        a = place.abs()
        a = a - period * torch.floor(a / period)
        if not bilinear:
            a = torch.where((place > 0) & (a == last + 0.5), a + 0.5, a)
        return torch.where(a > last, period - a, a)
    if fill == "wrap":
        period = max(last, 1)
        below = place + period * (torch.floor(-place / period) + 1)
        above = place - period * torch.floor(place / period)
        return torch.where(place < 0, below, torch.where(place > last, above, place))
    return place


def _interpolate(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    # grid_sample's unit with align_corners: -1 is the centre of the first pixel, 1 that of the last.
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), -1)
    return functional.grid_sample(
        images, grid.to(torch.float32), mode="bilinear", padding_mode="border", align_corners=True
    )


def _pick(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    width = images.shape[-1]
    place = (y + 0.5).floor().long() * width + (x + 0.5).floor().long()
    flat = images.reshape(*images.shape[:2], -1)
    picked = flat.gather(2, place.reshape(len(place), 1, -1).expand(-1, flat.shape[1], -1))
    return picked.reshape(*images.shape[:2], *x.shape[1:])
