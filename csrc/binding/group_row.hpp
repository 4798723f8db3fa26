// A parameter group as Python describes it.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "rules/scalars.hpp"
#include "torch/reader.hpp"

namespace onepass {

struct GroupRow;

// The tensors in the state dict of a group's parameters, in the order in which a step reads them.
struct Slots {
  enum class Role : uint8_t { state, step, ema, master, scale, anchor };
  static constexpr int most = 2 * max_states + 4;

  Slots() = default;
  explicit Slots(const GroupRow& group);

  // The slot of a key, or -1. Looks at `expected` first.
  int index_of(PyObject* name, int expected) const {
    return expected < count && key[expected].ptr() == name ? expected : look_up(name);
  }

  int count = 0;
  pybind11::object key[most];  // interned
  Role role[most] = {};
  int operand[most] = {};  // for a scale: the number of the state

 private:
  int look_up(PyObject* name) const;
};

// What python/onepass/optim/work.py makes of a group: (params, rule, keys, counted, numbers, extras). See
// python/onepass/_core.pyi, too.
struct GroupRow {
  GroupRow(const Reader& reader, const pybind11::tuple& group);

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

  Slots slots;
};

}  // namespace onepass
