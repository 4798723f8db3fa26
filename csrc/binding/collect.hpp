// Collects what one parameter brings to a step: its gradient, its states, its step count.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <span>
#include <vector>

#include "binding/group_cache.hpp"
#include "binding/group_row.hpp"
#include "plan/plan.hpp"
#include "torch/native.hpp"
#include "torch/reader.hpp"

namespace onepass {

class Engine;

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

// What an optimizer keeps from one step to the next: never where a tensor's numbers were, only how to find quickly
// where they are now, so that forgetting all of it changes nothing but the time of the next step.
struct Memory {
  struct Entry {
    PyObject* parameter = nullptr;  // of the last step; compared, never followed
    PyObject* own = nullptr;  // its state dict, valid while the dict of states is unchanged; null: look it up again
    uint64_t own_version = 0;
    uint32_t place = 0;  // of its first tensor
    uint32_t kind = 0;   // of its group
  };

  int64_t steps_applied = 0;       // counted in the call that applies a step, so that nothing can come between
  std::vector<Entry> entries;      // one per parameter, over all groups
  std::vector<PyObject*> tensors;  // of the parameters' states, valid while their dicts are unchanged
  uint64_t state_version = 0;      // of the dict of states at the end of the last step
  uint64_t disjoint = 0;           // fingerprint of a plan whose parameters do not share memory
  Remembered groups;               // as they were when they were last described
  Steadiness steadiness;           // of those
  std::shared_ptr<Engine> engine;  // of the device that the parameters are on
};

// A number that changes whenever the dict does, where Python keeps one; otherwise never the same twice.
uint64_t version_of(PyObject* dict);

enum class Found { nothing, ready, uncovered, repair, invalid };

// Reads what one parameter brings to a step: natively where that suffices, otherwise with Python.
class Gatherer {
 public:
  // `device` is where all tensors must be.
  Gatherer(Reader& reader, Memory& memory, PyObject* state, int device);

  // `entry` and `place`, that of the first tensor of its state, are the parameter's in the memory.
  Found read(const GroupView& group, PyObject* parameter, Memory::Entry& entry, size_t place);

  // Has the processor fetch what `read` will touch, in three stages of which each needs what the one before has
  // fetched.
  void prefetch_objects(const GroupView& group, PyObject* parameter, const Memory::Entry& entry, size_t place) const;
  void prefetch_tensors(const GroupView& group, PyObject* parameter, const Memory::Entry& entry, size_t place) const;
  void prefetch_storages(const GroupView& group, PyObject* parameter, const Memory::Entry& entry, size_t place) const;

  Operands operands;
  Count step{};
  pybind11::object gradient;         // owned, or
  Native::Tensor native_gradient{};  // not

 private:
  std::span<PyObject* const> known_states(const GroupView& group, PyObject* parameter, const Memory::Entry& entry,
                                          size_t place) const;
  bool knows(const GroupView& group, PyObject* parameter, const Memory::Entry& entry, size_t place) const;
  bool read_natively(const GroupView& group, PyObject* parameter, const Memory::Entry& entry, size_t place);
  Found read_with_python(const GroupView& group, PyObject* parameter, Memory::Entry& entry, size_t place);
  bool read_states(const GroupView& group, PyObject** tensor);
  bool read_like_param(PyObject* key, PyObject*& tensor, int operand);
  bool read_state(PyObject* key, PyObject*& tensor, TensorView& out, int device);

  Reader& reader_;
  Memory& memory_;
  PyObject* state_;
  int device_;
  bool state_unchanged_;
  PyObject* own_ = nullptr;  // the state dict that is being read, null where its tensors are known
};

}  // namespace onepass
