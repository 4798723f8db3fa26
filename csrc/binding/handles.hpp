// A faster way to read small tensors that a step meets again and again: torch's stable C interface
// (torch/csrc/inductor/aoti_torch/c/shim.h), looked up in the libtorch that is already loaded. It reads a tensor in a
// fraction of the time that the DLPack exchange takes, but through a handle that is made once and owns the tensor.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "layout.hpp"

namespace onepass {

// The handle of one tensor.
class Slot {
 public:
  Slot() = default;
  Slot(Slot&& other) noexcept;
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  ~Slot() { release(); }

  PyObject* tensor() const { return tensor_; }

  // Takes a CPU tensor that `view` describes, where that is possible and pays.
  void hold(PyObject* tensor, const TensorView& view);

  // Asks the processor to fetch what `read` will touch.
  void prefetch() const {
    if (handle_ != nullptr) __builtin_prefetch(*static_cast<void* const*>(handle_));
  }

  // False if the tensor is no longer what it was when it was taken: on the CPU, of the same dtype.
  bool read(TensorView& out) const;

 private:
  void release();

  PyObject* tensor_ = nullptr;
  void* handle_ = nullptr;
  int32_t dtype_code_ = 0;
  Dtype dtype_{};
};

// A number that changes whenever the dict does, where Python keeps one; otherwise never the same twice.
uint64_t version_of(PyObject* dict);

// What an optimizer keeps from one step to the next: never where a tensor was, only how to find quickly where it is
// now, so that forgetting all of it changes nothing but the time of the next step.
struct Memory {
  struct Entry {
    PyObject* seen = nullptr;       // the parameter of the last step; compared, never followed
    PyObject* parameter = nullptr;  // the same, if `own` and its slots are its; null: they have to be read again
    PyObject* own = nullptr;        // the parameter's state dict, valid while the dict of states is unchanged
    uint64_t own_version = 0;
  };

  std::vector<Entry> entries;  // one per parameter, over all groups
  std::vector<Slot> slots;     // as many per parameter as its group has states
  uint64_t state_version = 0;  // of the dict of states at the end of the last step
  uint64_t disjoint = 0;       // fingerprint of a plan whose parameters do not share memory
};

}  // namespace onepass
