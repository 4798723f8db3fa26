// One optimizer step as Python asks for it.
#pragma once

#include <pybind11/pybind11.h>

#include "handles.hpp"
#include "reader.hpp"

namespace onepass {

// Why a step was not done: nothing has been written. Pairs are (group, index in the group).
struct Trouble {
  pybind11::list uncovered;  // numbers of groups that hold something the kernels do not cover
  pybind11::list repair;     // pairs whose state is missing or cannot be used as it is
  pybind11::list invalid;    // pairs whose parameter and gradient do not fit together or have no memory
};

// Does one step for all groups. Each group is a tuple (params, rule, keys, counted, numbers): the list of parameters,
// the number of the rule, the names of its states in `state[parameter]`, whether there is a "step" beside them, and
// (scale, coupled, shrink, subgradient, l1_decay, hyper-parameters of the rule...). `fresh` lists the pairs without a
// "step" for which this is the first step. Returns the updated parameters of each group, or a Trouble. A dry step only
// looks: it writes nothing in either case.
pybind11::object step(Reader& reader, Memory& memory, const pybind11::list& groups, const pybind11::dict& state,
                      const pybind11::set& fresh, bool dry);

}  // namespace onepass
