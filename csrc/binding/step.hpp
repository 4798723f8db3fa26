// One optimizer step as Python asks for it.
#pragma once

#include <pybind11/pybind11.h>

#include "execute.hpp"
#include "gather.hpp"

namespace onepass {

// Why a step was not done: nothing has been written. Pairs are (group, index in the group).
struct Trouble {
  pybind11::list uncovered;  // numbers of groups that hold something the kernels do not cover
  pybind11::list repair;     // pairs whose state is missing or cannot be used as it is
  pybind11::list invalid;    // pairs whose parameter and gradient do not fit together or have no memory

  bool any() const { return !uncovered.empty() || !repair.empty() || !invalid.empty(); }
};

// What a step is about, apart from the groups.
struct Request {
  bool dry;                      // only look: write nothing in any case
  pybind11::object clip;         // a Clip or None
  pybind11::set first_steps;     // pairs that keep no "step" and whose first step this is
  pybind11::set first_averages;  // pairs whose average starts
  uint64_t seed, draw;           // of stochastic rounding
  int device = on_host;          // where the tensors are
  const Order* order = nullptr;  // what the device is asked for, if there is one
};

// Has torch.set_num_threads hold in the calling thread, too.
void meet_threads_of_torch();

// Does one step for all groups. Returns None, or a Trouble.
pybind11::object step(Reader& reader, Memory& memory, const pybind11::list& groups, const pybind11::dict& state,
                      const Request& request);

// Writes `values` (float32) in 8 bits into `codes` and `scales`, or back. The memory of values and codes runs in step;
// `kind` is a StateKind.
void quantise_state(Reader& reader, pybind11::handle values, pybind11::handle codes, pybind11::handle scales, int kind,
                    bool back);

// Has `clip` measure the gradients of all parameters that the kernels can read.
void measure(Reader& reader, Memory& memory, const pybind11::list& params, Clip& clip, const Request& request);

}  // namespace onepass
