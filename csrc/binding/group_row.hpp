// A parameter group as Python describes it.
#pragma once

#include <pybind11/pybind11.h>

#include "rules/scalars.hpp"
#include "torch/reader.hpp"

namespace onepass {

// What python/onepass/optim/work.py makes of a group: (params, rule, keys, counted, numbers, extras). See
// python/onepass/_core.pyi, too.
struct GroupView {
  GroupView(Reader& reader, const pybind11::tuple& group);

  pybind11::object params;     // a list
  pybind11::tuple keys;        // of the states in state[parameter]
  pybind11::tuple scale_keys;  // of the block scales, if the states are in 8 bits
  pybind11::tuple extras;      // keeps the next names alive
  PyObject* step_key;          // of the step count, or None
  bool counts_on_device;       // that is where the step count is
  PyObject* ema_key;           // or None
  PyObject* master_key;        // or None
  PyObject* anchor_key;        // or None; a parameter need not have one
  Group numbers;

  // How many parameters it has, and the one at a place.
  size_t size() const { return static_cast<size_t>(PyList_GET_SIZE(params.ptr())); }
  PyObject* at(size_t i) const { return PyList_GET_ITEM(params.ptr(), static_cast<Py_ssize_t>(i)); }

  // How many tensors of state a parameter has at most.
  size_t slots;
  // Which ones: groups of the same kind keep the same tensors in the same order.
  uint32_t kind;
};

}  // namespace onepass
