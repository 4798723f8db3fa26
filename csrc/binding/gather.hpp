// Collects what one parameter brings to a step: its gradient, its states, its step count.
#pragma once

#include <pybind11/pybind11.h>

#include "handles.hpp"
#include "plan.hpp"
#include "reader.hpp"

namespace onepass {

// A parameter group as Python describes it: (params, rule, keys, counted, numbers, extras). See
// python/onepass/_core.pyi.
struct GroupView {
  explicit GroupView(const pybind11::tuple& group);

  pybind11::list params;
  pybind11::tuple keys;        // of the states in state[parameter]
  bool counted;                // whether a "step" is there, too
  pybind11::tuple scale_keys;  // of the block scales, if the states are in 8 bits
  PyObject* ema_key;           // or None
  PyObject* master_key;        // or None
  PyObject* anchor_key;        // or None; a parameter need not have one
  Group numbers;

  // How many tensors of state a parameter has at most.
  size_t slots() const;
};

// Where the step count of a parameter is kept: a tensor of one float or double.
struct Count {
  void* data;
  bool is_double;

  double read() const { return is_double ? *static_cast<double*>(data) : *static_cast<float*>(data); }
  void write(double t) const {
    if (is_double) {
      *static_cast<double*>(data) = t;
    } else {
      *static_cast<float*>(data) = static_cast<float>(t);
    }
  }
};

enum class Found { nothing, ready, uncovered, repair, invalid };

class Gatherer {
 public:
  Gatherer(Reader& reader, Memory& memory, PyObject* state);

  // What stands in state[parameter] is only looked up anew where a dict has changed.
  Found read(const GroupView& group, PyObject* parameter, Memory::Entry& entry, Slot* slots);

  Operands operands;
  Count step{};
  pybind11::object gradient;

 private:
  Found read_states(const GroupView& group, PyObject* parameter, Memory::Entry& entry, Slot* slot);
  bool read_state(PyObject* key, Slot& slot, TensorView& out);
  bool read_like_param(PyObject* key, Slot& slot, int operand);

  Reader& reader_;
  PyObject* state_;
  bool state_unchanged_;
  PyObject* own_ = nullptr;  // the state dict of the parameter that is being read
  bool own_unchanged_ = false;
};

}  // namespace onepass
