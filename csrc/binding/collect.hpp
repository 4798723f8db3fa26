// Collects what a step reads and writes: of each parameter its gradient, its states, its step count. Everything is
// found and read in this step, from Python's own objects.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "binding/failure.hpp"
#include "binding/group_row.hpp"
#include "binding/memory.hpp"
#include "plan/plan.hpp"
#include "torch/reader.hpp"

namespace onepass {

struct Request;

// Where the step count of a parameter is kept: a tensor of one float or double.
struct Count {
  void* data = nullptr;  // null: its steps are not counted
  bool is_double = false;

  double read() const { return is_double ? *static_cast<double*>(data) : *static_cast<float*>(data); }
  void write(double t) const {
    if (is_double) {
      *static_cast<double*>(data) = t;
    } else {
      *static_cast<float*>(data) = static_cast<float>(t);
    }
  }
};

// The lists of one step. They are kept by the thread so that a step allocates nothing once they have grown.
struct Collected {
  // A parameter that the step changes, and the number of that step where the host counts it.
  struct Changed {
    PyObject* parameter;
    Count count;
    double t;
  };

  std::vector<GroupRow> groups;
  Plan plan;
  std::vector<Changed> changed;
  std::vector<PyObject*> objects;         // parameters and states that the plan has addresses of, borrowed
  std::vector<Native::Tensor> gradients;  // likewise, where they were read natively
  std::vector<pybind11::object> kept;     // what was read with Python's help, and its storages
  std::vector<PyObject*> parameters;      // of all groups, for comparison only
  std::vector<size_t> ends;               // of each group among them

  void clear();
};

// Fills the plan from the groups. What keeps a group from being stepped goes into `failure`.
void collect(Collected& collected, const Reader& reader, Memory& memory, const pybind11::dict& state,
             const Request& request, StepFailure& failure);

}  // namespace onepass
