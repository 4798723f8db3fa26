// One optimizer step as Python asks for it.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <utility>
#include <vector>

#include "binding/collect.hpp"
#include "binding/execute.hpp"

namespace onepass {

// Why a step was not done: nothing has been written.
struct Trouble {
  using Pairs = std::vector<std::pair<size_t, size_t>>;  // (group, index in the group)

  std::vector<size_t> uncovered;  // numbers of groups that hold something the kernels do not cover
  Pairs repair;                   // whose state is missing or cannot be used as it is
  Pairs invalid;                  // whose parameter and gradient do not fit together or have no memory

  bool any() const { return !uncovered.empty() || !repair.empty() || !invalid.empty(); }
};

// What a step is about, apart from the groups.
struct Request {
  bool dry = false;                               // only look: write nothing in any case
  Clip* clip = nullptr;                           // or null
  const pybind11::set* first_steps = nullptr;     // pairs that keep no "step" and whose first step this is, or null
  const pybind11::set* first_averages = nullptr;  // pairs whose average starts, or null
  uint64_t seed = 0, draw = 0;                    // of stochastic rounding
  bool counts = true;                             // the step in memory.steps_applied, once it is applied
  int device = on_host;                           // where the tensors are
  const Order* order = nullptr;                   // what the device is asked for, if there is one
};

// Python's None as null. pybind11 would do the same, but only after it has refused all arguments of the call once.
inline Clip* clip_of(const pybind11::object& clip) { return clip.is_none() ? nullptr : clip.cast<Clip*>(); }

// Has torch.set_num_threads hold in the calling thread, too.
void meet_threads_of_torch();

// Does one step for all groups, or nothing, and says why.
std::optional<Trouble> step(Reader& reader, Memory& memory, const pybind11::list& groups, const pybind11::dict& state,
                            const Request& request);

// Remembers dicts of groups and what they were described as, for `repeat`, if it can; see Remembered.
bool remember(Reader& reader, Memory& memory, const pybind11::list& groups, const pybind11::list& described,
              const pybind11::list& numbers, uint64_t seed);

// Does one step for all groups if they are as they were when they were remembered and nothing is out of the ordinary.
// False if not; nothing has been written then.
bool repeat(Reader& reader, Memory& memory, const pybind11::list& groups, const pybind11::dict& state, uint64_t draw,
            Clip* clip);

// Writes `values` (float32) in 8 bits into `codes` and `scales`, or back. The memory of values and codes runs in step;
// `kind` is a StateKind.
void quantise_state(Reader& reader, pybind11::handle values, pybind11::handle codes, pybind11::handle scales, int kind,
                    bool back);

// Has `clip` measure the gradients of all parameters that the kernels can read.
void measure(Reader& reader, Memory& memory, const pybind11::list& params, Clip& clip, const Request& request);

}  // namespace onepass
