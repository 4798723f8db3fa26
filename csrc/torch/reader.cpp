#include "torch/reader.hpp"

#include <algorithm>
#include <deque>

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

// Shapes and strides that were read from attributes. Python may run other threads meanwhile.
thread_local std::deque<std::vector<int64_t>> numbers;

}  // namespace

Reader::Reader(py::tuple tensor_types, py::function is_plain, py::tuple dtypes, bool use_dlpack, bool use_native)
    : ask_plain_(std::move(is_plain)), dtypes_(std::move(dtypes)) {
  for (py::handle type : tensor_types) exact_.push_back(reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr()));
  if (use_dlpack) api_ = find_api(tensor_types[0]);
  if (use_native && Native::of_torch().available()) native_ = &Native::of_torch();
  py::object grad = py::getattr(tensor_types[0], "grad");
  if (Py_TYPE(grad.ptr()) == &PyGetSetDescr_Type) grad_ = reinterpret_cast<PyGetSetDescrObject*>(grad.ptr())->d_getset;
}

bool Reader::is_exact(PyTypeObject* type) const {
  return std::find(exact_.begin(), exact_.end(), type) != exact_.end();
}

bool Reader::is_plain(PyTypeObject* type) {
  if (is_exact(type)) return true;
  const auto known = plain_.find(type);
  if (known != plain_.end()) return known->second;
  has_run_python_ = true;
  const bool plain = ask_plain_(py::handle(reinterpret_cast<PyObject*>(type))).cast<bool>();
  Py_INCREF(type);  // or another type could come to live at its address
  return plain_[type] = plain;
}

PyObject* Reader::gradient(PyObject* parameter) const {
  PyObject* grad = grad_ != nullptr && is_exact(Py_TYPE(parameter)) ? grad_->get(parameter, grad_->closure)
                                                                    : PyObject_GetAttrString(parameter, "grad");
  if (grad == nullptr) throw py::error_already_set();
  return grad;
}

PyObject* Reader::lookup(PyObject* dict, PyObject* parameter) const {
  PyObject* found;
#if PY_VERSION_HEX < 0x030D0000
  // A tensor's hash is its address; asking for it would call Python code.
  if (is_exact(Py_TYPE(parameter))) {
    found = _PyDict_GetItem_KnownHash(dict, parameter, reinterpret_cast<Py_hash_t>(parameter));
    if (found != nullptr) return found;
  }
#endif
  found = PyDict_GetItemWithError(dict, parameter);
  if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return found;
}

bool Reader::read(PyObject* tensor, TensorView& out) { return read_memory(tensor, out) && !is_negated(tensor, out); }

// DLPack does not tell of torch's lazy negation.
bool Reader::is_negated(PyObject* tensor, const TensorView& view) const {
  if (native_ != nullptr) return native_->is_negated(native_->of(tensor));
  // A view like x.conj().imag carries it, and is strided or tiny.
  const bool simple = view.dims > 0 && view.stride[view.dims - 1] == 1 && view.shape[view.dims - 1] > 1;
  return !simple && py::handle(tensor).attr("is_neg")().cast<bool>();
}

bool Reader::read_memory(PyObject* tensor, TensorView& out) {
  if (!is_plain(Py_TYPE(tensor))) return false;
  if (!(api_ != nullptr ? read_dlpack(tensor, out) : read_attributes(tensor, out))) return false;
  if (reinterpret_cast<uintptr_t>(out.data) < lowest_plain_address) {
    if (py::handle(tensor).attr("untyped_storage")().attr("size")().cast<int64_t>() == 0) out.data = nullptr;
  }
  return true;
}

void Reader::clear() { numbers.clear(); }

bool Reader::read_dlpack(PyObject* tensor, TensorView& out) const {
  dlpack::Tensor read;
  if (api_->read(tensor, &read) != 0) {  // sparse, meta, quantised, ...: nothing with an address
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
  return find_dtype(read.dtype, out.dtype);
}

bool Reader::read_attributes(PyObject* tensor, TensorView& out) const {
  const py::handle t(tensor);
  if (t.attr("layout").attr("__str__")().cast<std::string>() != "torch.strided") return false;
  const py::object device = t.attr("device");
  const auto type = device.attr("type").cast<std::string>();
  if (type != "cpu" && !(reads_cuda && type == "cuda")) return false;
  out.device = type == "cpu" ? on_host : device.attr("index").cast<int>();
  const py::object dtype = t.attr("dtype");
  size_t code = 0;
  while (code < dtypes_.size() && !dtype.is(dtypes_[code])) ++code;
  if (code == dtypes_.size()) return false;
  out.dtype = static_cast<Dtype>(code);
  out.data = reinterpret_cast<void*>(t.attr("data_ptr")().cast<uintptr_t>());
  std::vector<int64_t>& own = numbers.emplace_back();
  for (const py::handle size : t.attr("shape")) own.push_back(size.cast<int64_t>());
  out.dims = static_cast<int>(own.size());
  for (const py::handle stride : t.attr("stride")()) own.push_back(stride.cast<int64_t>());
  out.shape = own.data();
  out.stride = own.data() + out.dims;
  return true;
}

}  // namespace onepass
