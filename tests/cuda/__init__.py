"""The kernels for devices: on the host itself, where they must give the bits of the CPU's kernels, and on GPUs."""

from __future__ import annotations
