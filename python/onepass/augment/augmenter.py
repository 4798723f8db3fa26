"""The random warps, and what they are applied to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from onepass import _core
from onepass.augment import _checks, _pictures, _points, _warp
from onepass.augment._pictures import Array, Pictures


@dataclass(frozen=True)
class Augmenter:
    r"""Random crop, flip, rotation, shift, shear and zoom as one warp per picture, normalised.

    One 2x3 matrix per picture maps each pixel of the output to a place in the input, pixel centres
    lying at integers. The window of the output is placed in the padded picture; about the window's
    own centre :math:`c` the rest is composed:

    .. math:: x_{in} = place + c + R\,(S\,Z\,F\,(x_{out} - c) + t)

    with :math:`R = [[\cos\theta, -\sin\theta], [\sin\theta, \cos\theta]]`, shear
    :math:`S = [[1, -\sin\phi], [0, \cos\phi]]`, zoom :math:`Z = diag(z_x, z_y)`, flips
    :math:`F = diag(\pm 1, \pm 1)` and shift :math:`t`, a fraction of the window. What a place
    outside the picture shows is up to the fill mode. So padding is never made: it is the fill
    mode's answer for the places beyond the border, also where a rotated window reaches into it, and
    a rotated crop shows what really lies beside it.

    All that is random depends on (`seed`, `epoch`, sample number) alone: not on the batch, its
    order, worker processes or threads, nor on the machine, nor on torch's default device and dtype.
    No global generator is used. A sample that is drawn twice in an epoch is the same picture twice;
    where that is not wanted, pass numbers of draws for sample numbers.

    Args:
        rotation_range: :math:`\theta` is uniform in [-r, r] degrees; in [0, 360], default 0.
        width_shift_range: :math:`t_x` is uniform in [-s, s] times the width; in [0, 1), default 0.
        height_shift_range: :math:`t_y`, of the height; in [0, 1), default 0.
        shear_range: :math:`\phi` is uniform in [-s, s] degrees; in [0, 90), default 0.
        zoom_range: :math:`z_x` and :math:`z_y` are independent and uniform in [1 - z, 1 + z] for
            z in [0, 1), or in [low, high] for a pair. Above 1 the picture shrinks. Default 0.
        horizontal_flip: Swap left and right with probability 1/2. Default False.
        vertical_flip: Swap top and bottom with probability 1/2. Default False.
        crop: (height, width) of the output; None, the default, is the size of the input.
        crop_padding: Pixels by which the picture is padded on every side before the window is
            placed, uniformly over whole positions; at least 0, default 0; needs `crop`.
        fill_mode: What lies outside, as ``scipy.ndimage.affine_transform`` names it: ``"nearest"``
            (default), ``"reflect"``, ``"mirror"``, ``"wrap"`` or ``"constant"``.
        cval: The value outside for ``"constant"``, in the unit of the input; default 0.
        interpolation: ``"bilinear"`` (default) or ``"nearest"``.
        mean: Subtracted after uint8 has been divided by 255: a number or one per channel; None, the
            default, subtracts nothing.
        std: Divides after that; positive; None, the default, divides by nothing.
        seed: Of all draws; in [0, 2**64), default 0.
        layout: ``"NCHW"`` or ``"NHWC"``; None, the default, takes the axis of at most 4 as
            channels, NCHW if both fit.

    Raises:
        ValueError: An argument is out of its range; the message names it.

    Example:
        >>> import torch
        >>> from onepass.augment import Augmenter
        >>> aug = Augmenter(rotation_range=15, horizontal_flip=True, mean=0.5, std=0.25)
        >>> images = torch.randint(0, 256, (8, 28, 28, 1), dtype=torch.uint8)
        >>> batch = aug(images, index=range(8), epoch=3)
        >>> batch.shape, batch.dtype
        (torch.Size([8, 1, 28, 28]), torch.float32)
        >>> bool((aug(images[5:6], index=[5], epoch=3)[0] == batch[5]).all())
        True

    Reference:
        Random numbers: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3"
        (2011). Padded random crops: Lee et al., "Deeply-supervised nets" (2015).

    The parameters have the names and units of Keras' ImageDataGenerator. Different from it: the
    width shift moves columns, the rotation turns about the centre of pictures that are not square
    too, shifts are fractions only, and uint8 comes out divided by 255.
    """

    rotation_range: float = 0
    width_shift_range: float = 0
    height_shift_range: float = 0
    shear_range: float = 0
    zoom_range: float | Sequence[float] | Array = 0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    crop: tuple[int, int] | None = None
    crop_padding: int = 0
    fill_mode: str = "nearest"
    cval: float = 0.0
    interpolation: str = "bilinear"
    mean: float | Sequence[float] | Array | torch.Tensor | None = None
    std: float | Sequence[float] | Array | torch.Tensor | None = None
    seed: int = 0
    layout: str | None = None

    # No fields, as they are no part of the value; an instance that has warned or looked holds True.
    _warned = False
    _looked = False

    def __post_init__(self) -> None:
        for name, value in _checks.settings(self).items():
            object.__setattr__(self, name, value)

    def __call__(
        self,
        images: Array | torch.Tensor,
        index: Any,
        epoch: int = 0,
        train: bool = True,
        *,
        layout: str | None = None,
    ) -> torch.Tensor:
        """Augment images: `index[k]` is the sample number of `images[k]`.

        Args:
            images: uint8 or float32, (N, C, H, W) or (N, H, W, C), any strides, CPU or CUDA.
            index: N whole numbers in [0, 2**63): of the samples, so that a sample which occurs twice
                in an epoch is warped alike; or of the draws, counted through the epoch, so that it
                is not.
            epoch: Each has its own draws; in [0, 2**32), default 0.
            train: False crops the centre and normalises, nothing else. Default True.
            layout: Overrides the augmenter's.

        Returns:
            float32 of shape (N, C, height, width), on the device of the images.

        Raises:
            TypeError: The images are neither uint8 nor float32.
            ValueError: Any other argument is wrong; the message names it.

        Example:
            >>> import torch
            >>> from onepass.augment import Augmenter
            >>> aug = Augmenter(rotation_range=15)
            >>> images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8)
            >>> drawn = [5, 5]
            >>> first, second = aug(images[drawn], index=drawn)
            >>> torch.equal(first, second)
            True
            >>> first, second = aug(images[drawn], index=range(2))
            >>> torch.equal(first, second)
            False
        """
        pictures = self._read(images, layout)
        matrices = self._sample(index, epoch, (pictures.shape[2], pictures.shape[3]), train)
        if len(matrices) != len(pictures):
            _checks.refuse("index", f"{len(pictures)} numbers, one per image", len(matrices))
        return self._warp(pictures, None, matrices, self.interpolation)

    def sample(
        self, index: Any, epoch: int, size: tuple[int, int], train: bool = True
    ) -> torch.Tensor:
        """Matrices (N, 2, 3), float64, of the given samples for inputs of `size` = (H, W).

        They map output to input: (x, y) of a pixel's centre, counted from the centre of the first.

        Example:
            >>> from onepass.augment import Augmenter
            >>> Augmenter(crop=(24, 24)).sample([0], 0, (28, 28), train=False)
            tensor([[[1., 0., 2.],
                     [0., 1., 2.]]], dtype=torch.float64)
        """
        return torch.from_numpy(self._sample(index, epoch, _checks.size("size", size), train))

    def apply(
        self,
        images: Array | torch.Tensor,
        matrices: Any,
        interpolation: str | None = None,
        *,
        layout: str | None = None,
    ) -> torch.Tensor:
        """Warp images by given matrices (N, 2, 3) and normalise, as a call does with its own.

        Warns once of aliasing if a matrix shrinks by more than 2: only the four pixels around each
        place are read, and what lies between is skipped.
        """
        pictures = self._read(images, layout)
        chosen = (
            self.interpolation
            if interpolation is None
            else _checks.choice("interpolation", interpolation, _checks.INTERPOLATIONS)
        )
        checked = _pictures.as_matrices(matrices, len(pictures))
        return self._warp(pictures, None, checked, chosen)

    def apply_mask(
        self,
        masks: Array | torch.Tensor,
        matrices: Any,
        *,
        cval: float = 0,
        layout: str | None = None,
    ) -> torch.Tensor:
        """Warp masks by the matrices of their images: nearest value, dtype and values kept.

        Args:
            masks: (N, H, W), or with channels as images; any dtype of 1 to 8 bytes.
            matrices: (N, 2, 3), as of `sample`.
            cval: The value outside for the fill mode ``"constant"``; default 0.
            layout: Overrides the augmenter's, for masks of rank 4.

        Returns:
            (N, height, width), or (N, C, height, width) for masks of rank 4.
        """
        _pictures.check_kind("masks", masks)
        dtype = _pictures.torch_dtype("masks", masks)
        flat = masks.ndim == 3
        with_channels = masks[:, None] if flat else masks
        chosen = "NCHW" if flat else self._layout(layout)
        pictures = _pictures.channels_first("masks", with_channels, chosen)
        checked = _pictures.as_matrices(matrices, len(pictures))
        _points.finite_stretch(checked)
        fill = _checks.cval(cval)
        size = self._out_size((pictures.shape[2], pictures.shape[3]))
        moved = _warp.warp_masks(
            pictures, checked, size, dtype=dtype, fill=self.fill_mode, cval=fill
        )
        return moved[:, 0] if flat else moved

    def points(self, xy: Any, matrices: Any) -> torch.Tensor:
        """Move points (N, K, 2) of the inputs to where the warped pictures show them.

        Coordinates are (x, y) as of `sample`: the pixel in column 3 of row 5 is (3, 5). The result
        has the dtype of a floating-point `xy`, else float64.

        Example:
            >>> from onepass.augment import Augmenter
            >>> aug = Augmenter(crop=(24, 24))
            >>> aug.points([[[2.0, 5.0]]], aug.sample([0], 0, (28, 28), train=False))
            tensor([[[0., 3.]]], dtype=torch.float64)
        """
        return _points.move(xy, matrices)

    def _layout(self, layout: str | None) -> str | None:
        return self.layout if layout is None else _checks.layout(layout)

    def _read(self, images: Any, layout: str | None) -> Pictures:
        _pictures.check_kind("images", images)
        if images.dtype not in (torch.uint8, torch.float32, np.uint8, np.float32):
            message = f"images must be uint8 or float32, got {images.dtype}"
            raise TypeError(message)
        return _pictures.channels_first("images", images, self._layout(layout))

    def _out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size if self.crop is None else self.crop

    def _sample(self, index: Any, epoch: int, size: tuple[int, int], train: bool) -> _warp.Matrices:
        numbers = _checks.sample_numbers("index", index)
        checked = _checks.whole("epoch", epoch, 0, 2**32 - 1)
        height, width = self._out_size(size)
        if not _checks.flag("train", train):
            centre = [[1, 0, (size[1] - width) // 2], [0, 1, (size[0] - height) // 2]]
            return np.tile(np.array(centre, np.float64), (len(numbers), 1, 1))
        padding = self.crop_padding
        if height > size[0] + 2 * padding or width > size[1] + 2 * padding:
            _checks.refuse("crop", f"at most the padded size of {size} pictures", self.crop)
        return _core.sample_warps(
            numbers,
            epoch=checked,
            size=size,
            out_size=(height, width),
            rotation=self.rotation_range,
            shear=self.shear_range,
            shift=(self.width_shift_range, self.height_shift_range),
            zoom=_checks.zoom(self.zoom_range),
            flip=(self.horizontal_flip, self.vertical_flip),
            padding=padding,
            seed=self.seed,
        )

    def _look(self, pictures: Pictures, rows: _warp.Rows | None) -> None:
        """Warn if the first float pictures look like bytes that were never divided by 255."""
        if self._looked or pictures.dtype not in (torch.float32, np.float32) or not len(pictures):
            return
        object.__setattr__(self, "_looked", True)
        chosen: Any = pictures if rows is None or not len(rows) else pictures[rows]
        low, high = chosen.min().item(), chosen.max().item()
        if low >= 0.0 and high > 2.0:
            message = (
                f"float pictures are taken as they are, not divided by 255, and these reach to {high:g}: if they were "
                "bytes, give them as uint8, or divide them"
            )
            warnings.warn(message, UserWarning, stacklevel=4)

    def _warp(
        self,
        pictures: Pictures,
        rows: _warp.Rows | None,
        matrices: _warp.Matrices,
        interpolation: str,
    ) -> torch.Tensor:
        if _points.finite_stretch(matrices) > 2 + 1e-9 and not self._warned:
            object.__setattr__(self, "_warned", True)
            message = "a warp shrinks by more than 2 and skips pixels: expect aliasing"
            warnings.warn(message, UserWarning, stacklevel=3)
        self._look(pictures, rows)
        channels = pictures.shape[1]
        return _warp.warp_images(
            pictures,
            rows,
            matrices,
            self._out_size((pictures.shape[2], pictures.shape[3])),
            fill=self.fill_mode,
            bilinear=interpolation == "bilinear",
            mean=_checks.spread("mean", self.mean, channels, 0.0),
            std=_checks.spread("std", self.std, channels, 1.0),
            cval=self.cval,
        )
