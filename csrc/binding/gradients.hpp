// What zero_grad() does with the gradients of all parameters.
#pragma once

#include <pybind11/pybind11.h>

#include "torch/reader.hpp"

namespace onepass {

// Sets the .grad of every parameter to None.
void drop_gradients(const Reader& reader, const pybind11::list& groups);

// The gradients that there are: those whose numbers have only to be set to zero, and the others (sparse ones, foreign
// subclasses, those that autograd follows).
pybind11::tuple sorted_gradients(const Reader& reader, const pybind11::list& groups);

}  // namespace onepass
