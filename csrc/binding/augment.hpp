// The augmentation as Python asks for it.
#pragma once

#include <pybind11/pybind11.h>

namespace onepass {

// Adds philox, sample_warps, largest_stretch and warp.
void bind_augment(pybind11::module_& m);

}  // namespace onepass
