// Reads torch tensors: address, dtype, shape, strides. Through the DLPack C exchange API where torch has it, otherwise
// through the tensor's Python attributes.
#pragma once

#include <pybind11/pybind11.h>

#include <unordered_map>
#include <vector>

#include "dlpack.hpp"
#include "layout.hpp"

namespace onepass {

// Below this address no tensor can be told from an offset into a storage that has lost its memory.
constexpr uintptr_t lowest_plain_address = uintptr_t{1} << 40;

class Reader {
 public:
  // `tensor_types` are torch.Tensor and its plain subclasses of torch's own, `is_plain(type)` decides of all others
  // whether their memory may be read directly; `dtypes` are torch's, in the order of Dtype.
  Reader(pybind11::tuple tensor_types, pybind11::function is_plain, pybind11::tuple dtypes, bool use_dlpack);

  // False if the kernels do not cover the tensor: another device or dtype, no strided memory, a foreign subclass.
  // A tensor whose storage was resized to 0 has a null address.
  bool read(PyObject* tensor, TensorView& out);

  // The same for a tensor that is known not to be lazily negated.
  bool read_memory(PyObject* tensor, TensorView& out);

  // The .grad of a parameter: a new reference.
  PyObject* gradient(PyObject* parameter) const;

  // The value of `parameter` in `dict`, borrowed, or null.
  PyObject* lookup(PyObject* dict, PyObject* parameter) const;

  bool uses_dlpack() const { return api_ != nullptr; }

  // Forgets the shapes that this thread has read from attributes.
  static void clear();

 private:
  bool is_exact(PyTypeObject* type) const;
  bool is_plain(PyTypeObject* type);
  bool read_dlpack(PyObject* tensor, TensorView& out) const;
  bool read_attributes(PyObject* tensor, TensorView& out) const;

  std::vector<PyTypeObject*> exact_;
  std::unordered_map<PyTypeObject*, bool> plain_;
  pybind11::function ask_plain_;
  pybind11::tuple dtypes_;
  const dlpack::ExchangeApi* api_ = nullptr;
  PyGetSetDef* grad_ = nullptr;
};

}  // namespace onepass
