// Reads torch tensors: address, dtype, shape, strides. Natively where torch is one that this has been tested with,
// otherwise through what torch promises to everybody: its DLPack exchange table and methods of tensors.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "plan/layout.hpp"
#include "torch/dlpack.hpp"
#include "torch/native.hpp"

namespace onepass {

class Reader {
 public:
  // `tensor_types` are torch.Tensor and torch.nn.Parameter, `is_plain(type)` decides of all others
  // whether their memory may be read directly. `way` is "native" (torch's functions and objects), "functions" (its
  // functions alone) or "dlpack".
  Reader(pybind11::tuple tensor_types, pybind11::function is_plain, const std::string& way);

  // The way that works here: "native", "functions", "dlpack", or "none".
  const char* way() const;

  // Null where tensors are not read natively.
  const Native* native() const { return native_; }

  // torch.Tensor itself or torch.nn.Parameter.
  bool is_exact(PyObject* object) const { return Py_TYPE(object) == tensor_ || Py_TYPE(object) == parameter_; }

  // The .grad of a parameter: a new reference. May run Python.
  PyObject* gradient(PyObject* parameter) const;

  // Sets the .grad of a parameter to None, if it is not. May run Python.
  void drop_gradient(PyObject* parameter) const;

  // What has to be known of a tensor before it is read. May run Python. `storage` is kept for `view`, which cannot do
  // without it where tensors are not read natively. False if the kernels do not cover the tensor: lazily negated, a
  // foreign subclass.
  bool examine(PyObject* tensor, pybind11::object& storage) const;

  // Whether an examined tensor is one of inference mode, which nobody may write to. May run Python.
  bool is_inference(PyObject* tensor) const;

  // Reads a tensor that has been examined, without Python. False if the kernels do not cover it: another device or
  // dtype, no strided memory. A tensor that reaches beyond its storage has a null address.
  bool view(PyObject* tensor, PyObject* storage, TensorView& out) const;

  // Both at once.
  bool read(PyObject* tensor, TensorView& out) const {
    pybind11::object storage;
    return examine(tensor, storage) && view(tensor, storage.ptr(), out);
  }

 private:
  bool read_dlpack(PyObject* tensor, PyObject* storage, TensorView& out) const;

  PyTypeObject *tensor_, *parameter_;
  pybind11::function is_plain_;
  const dlpack::ExchangeApi* api_ = nullptr;
  const Native* native_ = nullptr;
  PyGetSetDef* grad_ = nullptr;
};

}  // namespace onepass
