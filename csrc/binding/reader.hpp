// Reads torch tensors: address, dtype, shape, strides. Through the DLPack C exchange API where torch has it, otherwise
// through the tensor's Python attributes.
#pragma once

#include <pybind11/pybind11.h>

#include <deque>
#include <unordered_map>
#include <vector>

#include "dlpack.hpp"
#include "layout.hpp"

namespace onepass {

class Reader {
 public:
  // `tensor_types` are torch.Tensor and its plain subclasses of torch's own, `is_plain(type)` decides of all others
  // whether their memory may be read directly; `dtypes` are torch's, in the order of Dtype.
  Reader(pybind11::tuple tensor_types, pybind11::function is_plain, pybind11::tuple dtypes, bool use_dlpack);

  // False if the kernels do not cover the tensor: another device or dtype, no strided memory, a foreign subclass.
  bool read(PyObject* tensor, TensorView& out);

  // The same for a tensor that is known not to be lazily negated.
  bool read_memory(PyObject* tensor, TensorView& out);

  // The .grad of a parameter: a new reference.
  PyObject* gradient(PyObject* parameter) const;

  // The value of `parameter` in `dict`, borrowed, or null.
  PyObject* lookup(PyObject* dict, PyObject* parameter) const;

  bool uses_dlpack() const { return api_ != nullptr; }

  // Forgets the shapes that attributes were read into.
  void clear() { numbers_.clear(); }

 private:
  bool is_exact(PyTypeObject* type) const;
  bool is_plain(PyTypeObject* type);
  bool read_dlpack(PyObject* tensor, TensorView& out) const;
  bool read_attributes(PyObject* tensor, TensorView& out);

  std::vector<PyTypeObject*> exact_;
  std::unordered_map<PyTypeObject*, bool> plain_;
  pybind11::function ask_plain_;
  pybind11::tuple dtypes_;
  const dlpack::ExchangeApi* api_ = nullptr;
  PyGetSetDef* grad_ = nullptr;
  std::deque<std::vector<int64_t>> numbers_;
};

}  // namespace onepass
