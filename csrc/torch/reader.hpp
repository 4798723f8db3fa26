// Reads torch tensors: address, dtype, shape, strides. Through the DLPack C exchange API where torch has it, otherwise
// through the tensor's Python attributes.
#pragma once

#include <pybind11/pybind11.h>

#include <unordered_map>
#include <utility>
#include <vector>

#include "plan/layout.hpp"
#include "torch/dlpack.hpp"
#include "torch/native.hpp"

namespace onepass {

class Reader {
 public:
  // `tensor_types` are torch.Tensor and its plain subclasses of torch's own, `is_plain(type)` decides of all others
  // whether their memory may be read directly; `dtypes` are torch's, in the order of Dtype.
  Reader(pybind11::tuple tensor_types, pybind11::function is_plain, pybind11::tuple dtypes, bool use_dlpack,
         bool use_native);

  // False if the kernels do not cover the tensor: another device or dtype, no strided memory, a foreign subclass.
  // A tensor whose storage was resized to 0 has a null address.
  bool read(PyObject* tensor, TensorView& out);

  // The .grad of a parameter: a new reference.
  PyObject* gradient(PyObject* parameter) const;

  // The value of `parameter` in `dict`, borrowed, or null.
  PyObject* lookup(PyObject* dict, PyObject* parameter) const;

  // torch.Tensor itself or one of its plain subclasses.
  bool is_exact(PyTypeObject* type) const;

  bool uses_dlpack() const { return api_ != nullptr; }

  // Null where tensors cannot be read without Python.
  const Native* native() const { return native_; }

  // Whether any Python code was run since the last call: other threads may have changed what was read before.
  bool has_run_python() { return std::exchange(has_run_python_, false); }

  // Forgets the shapes that this thread has read from attributes.
  static void clear();

 private:
  bool is_plain(PyTypeObject* type);
  bool read_memory(PyObject* tensor, TensorView& out);
  bool is_negated(PyObject* tensor, const TensorView& view) const;
  bool read_dlpack(PyObject* tensor, TensorView& out) const;
  bool read_attributes(PyObject* tensor, TensorView& out) const;

  std::vector<PyTypeObject*> exact_;
  std::unordered_map<PyTypeObject*, bool> plain_;
  pybind11::function ask_plain_;
  pybind11::tuple dtypes_;
  const dlpack::ExchangeApi* api_ = nullptr;
  const Native* native_ = nullptr;
  PyGetSetDef* grad_ = nullptr;
  bool has_run_python_ = false;
};

}  // namespace onepass
