#include "torch/reader.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

const dlpack::ExchangeApi* find_api(py::handle tensor_type) {
  py::object capsule = py::getattr(tensor_type, "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(capsule.ptr(), dlpack::capsule_name)) return nullptr;
  auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::capsule_name));
  while (api != nullptr && api->version.major > dlpack::major_version) api = api->previous;
  return api != nullptr && api->version.major == dlpack::major_version && api->read != nullptr ? api : nullptr;
}

struct NamedType {
  uint8_t code, bits;
};
// By Dtype.
constexpr NamedType types[] = {{dlpack::floating, 32}, {dlpack::floating, 64}, {dlpack::bfloat, 16},
                               {dlpack::floating, 16}, {dlpack::integer, 16},  {dlpack::unsigned_integer, 8}};

bool find_dtype(const dlpack::DataType& type, Dtype& out) {
  for (size_t i = 0; i < std::size(types); ++i) {
    if (type.code == types[i].code && type.bits == types[i].bits) {
      out = static_cast<Dtype>(i);
      return type.lanes == 1;
    }
  }
  return false;
}

PyObject* interned(const char* name) { return PyUnicode_InternFromString(name); }

// The result of a method without arguments as a number; false if it raises.
bool ask(PyObject* object, PyObject* method, uintptr_t& out) {
  PyObject* const result = PyObject_CallMethodNoArgs(object, method);
  if (result == nullptr) {
    PyErr_Clear();
    return false;
  }
  out = PyLong_AsSize_t(result);
  Py_DECREF(result);
  if (!PyErr_Occurred()) return true;
  PyErr_Clear();
  return false;
}

}  // namespace

Reader::Reader(py::tuple tensor_types, py::function is_plain, const std::string& way) : is_plain_(std::move(is_plain)) {
  if (tensor_types.size() != 2) throw py::value_error("tensor_types: must be two");
  tensor_ = reinterpret_cast<PyTypeObject*>(py::object(tensor_types[0]).release().ptr());
  parameter_ = reinterpret_cast<PyTypeObject*>(py::object(tensor_types[1]).release().ptr());
  const bool directly = way == "native";
  if ((directly || way == "functions") && Native::of_torch(directly).available()) native_ = &Native::of_torch(directly);
  if (native_ == nullptr) api_ = find_api(tensor_types[0]);
  py::object grad = py::getattr(tensor_types[0], "grad");
  if (Py_TYPE(grad.ptr()) == &PyGetSetDescr_Type) grad_ = reinterpret_cast<PyGetSetDescrObject*>(grad.ptr())->d_getset;
}

const char* Reader::way() const {
  if (native_ != nullptr) return native_->reads_objects() ? "native" : "functions";
  return api_ != nullptr ? "dlpack" : "none";
}

PyObject* Reader::gradient(PyObject* parameter) const {
  PyObject* grad = grad_ != nullptr && is_exact(parameter) ? grad_->get(parameter, grad_->closure)
                                                           : PyObject_GetAttrString(parameter, "grad");
  if (grad == nullptr) throw py::error_already_set();
  return grad;
}

void Reader::drop_gradient(PyObject* parameter) const {
  if (grad_ != nullptr && grad_->set != nullptr && is_exact(parameter)) {
    if (native_ != nullptr && native_->gradient(native_->of(parameter)) == nullptr) return;
    if (grad_->set(parameter, Py_None, grad_->closure) != 0) throw py::error_already_set();
    return;
  }
  const py::object holder = py::reinterpret_borrow<py::object>(parameter);
  if (!holder.attr("grad").is_none()) holder.attr("grad") = py::none();
}

bool Reader::is_inference(PyObject* tensor) const {
  if (native_ != nullptr) return native_->is_inference(native_->of(tensor));
  static PyObject* const name = interned("is_inference");
  uintptr_t inference = 0;
  return !ask(tensor, name, inference) || inference != 0;
}

bool Reader::examine(PyObject* tensor, py::object& storage) const {
  if (!is_exact(tensor) && !is_plain_(py::handle(reinterpret_cast<PyObject*>(Py_TYPE(tensor)))).cast<bool>()) {
    return false;
  }
  if (native_ != nullptr) return true;
  static PyObject* const is_neg = interned("is_neg");
  static PyObject* const untyped_storage = interned("untyped_storage");
  uintptr_t negated = 0;
  if (api_ == nullptr || !ask(tensor, is_neg, negated) || negated != 0) return false;
  storage = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(tensor, untyped_storage));
  if (!storage) PyErr_Clear();  // sparse, ...: it has none
  return static_cast<bool>(storage);
}

bool Reader::view(PyObject* tensor, PyObject* storage, TensorView& out) const {
  return native_ != nullptr ? native_->read(native_->of(tensor), out) : read_dlpack(tensor, storage, out);
}

bool Reader::read_dlpack(PyObject* tensor, PyObject* storage, TensorView& out) const {
  dlpack::Tensor read;
  if (api_->read(tensor, &read) != 0) {  // meta, quantized, ...: nothing with an address
    PyErr_Clear();
    return false;
  }
  const bool host = read.device.type == dlpack::cpu || read.device.type == dlpack::cuda_host;
  if (!host && !(reads_cuda && read.device.type == dlpack::cuda)) return false;
  out.device = host ? on_host : read.device.id;
  out.data = static_cast<char*>(read.data) + read.byte_offset;
  out.dims = read.ndim;
  out.shape = read.shape;
  out.stride = read.strides;
  if (!find_dtype(read.dtype, out.dtype)) return false;
  static PyObject* const nbytes = interned("nbytes");
  static PyObject* const data_ptr = interned("data_ptr");
  uintptr_t bytes = 0, start = 0;
  if (!ask(storage, nbytes, bytes) || !ask(storage, data_ptr, start)) return false;
  const auto offset = static_cast<int64_t>(reinterpret_cast<uintptr_t>(out.data) - start);
  if (!fits(out, offset / size_of(out.dtype), static_cast<int64_t>(bytes))) out.data = nullptr;
  return true;
}

}  // namespace onepass
