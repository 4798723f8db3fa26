// The streaming limit as Python measures it.
#pragma once

#include <pybind11/pybind11.h>

#include "plan/plan.hpp"
#include "torch/reader.hpp"

namespace onepass {

class Stream {
 public:
  // `tensors`: a tuple (param, grad, states...) per tensor, dense, of one shape, layout and dtype. Keeps them alive.
  Stream(const Reader& reader, const pybind11::list& tensors);

  // Reads and writes what a step of these tensors would, in the same chunks, and changes nothing.
  void run() const;

 private:
  Plan plan_;
  pybind11::list kept_;
};

}  // namespace onepass
