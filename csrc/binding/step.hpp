// One optimizer step as Python asks for it.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <set>
#include <utility>

#include "binding/collect.hpp"
#include "binding/execute.hpp"
#include "binding/failure.hpp"

namespace onepass {

// Parameters, each as (group, index in the group). Python's sets cannot be asked while a step is collected.
using ParameterSet = std::set<std::pair<size_t, size_t>>;

// What a step is about, apart from the groups.
struct Request {
  bool dry = false;                      // only look: write nothing in any case
  Clip* clip = nullptr;                  // or null
  ParameterSet first_steps = {};         // those that keep no "step" and whose first step this is
  ParameterSet first_emas = {};          // those whose average starts
  uint64_t seed = 0, draw = 0;           // of stochastic rounding
  bool counts = true;                    // the step in memory.steps_applied, once it is applied
  int device = on_host;                  // where the tensors are
  const StepOptions* options = nullptr;  // what the device is asked for, if there is one
};

// Python's None as null. pybind11 would do the same, but only after it has refused all arguments of the call once.
inline Clip* clip_of(const pybind11::object& clip) { return clip.is_none() ? nullptr : clip.cast<Clip*>(); }

// Has torch.set_num_threads hold in the calling thread, too.
void sync_num_threads();

// Does one step for all groups, or nothing, and says why.
std::optional<StepFailure> step(const Reader& reader, Memory& memory, const pybind11::list& groups,
                                const pybind11::dict& state, const Request& request);

// Remembers dicts of groups and what they were packed as, for `repeat`, if it can; see GroupCache.
bool remember(const Reader& reader, Memory& memory, const pybind11::list& groups, const pybind11::list& rows,
              const pybind11::list& varying, uint64_t seed);

// Does one step for all groups if they are as they were when they were remembered and nothing is out of the ordinary.
// False if not; nothing has been written then.
bool repeat(const Reader& reader, Memory& memory, const pybind11::list& groups, const pybind11::dict& state,
            Clip* clip);

// Writes `values` (float32) in 8 bits into `codes` and `scales`, or back. The memory of values and codes runs in step;
// `kind` is a StateKind.
void quantize_state(const Reader& reader, pybind11::handle values, pybind11::handle codes, pybind11::handle scales,
                    int kind, bool back);

// Has `clip` measure the gradients of all parameters that the kernels can read.
void measure(const Reader& reader, Memory& memory, const pybind11::list& params, Clip& clip, const Request& request);

}  // namespace onepass
