#include "handles.hpp"

#include <dlfcn.h>

#include <utility>

#include "reader.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

// Above this many elements a handle saves nothing that could be noticed, and would keep much memory.
constexpr int64_t largest_held = 65536;

using Handle = void*;

template <class T>
using Getter = int32_t (*)(Handle, T*);

struct StableApi {
  Getter<void*> data = nullptr;
  Getter<int64_t> dims = nullptr;
  Getter<int64_t*> sizes = nullptr;
  Getter<int64_t*> strides = nullptr;
  Getter<int32_t> dtype = nullptr;
  Getter<int32_t> device = nullptr;
  int32_t (*release)(Handle) = nullptr;
  int32_t cpu = -1;
  py::object make;  // torch._C._aoti.unsafe_alloc_void_ptr_from_tensor
  bool complete = false;

  StableApi() {
    void* const library = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY);
    if (library == nullptr) return;
    int32_t (*cpu_code)() = nullptr;
    const auto find = [&](const char* name, auto& function) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    complete = find("aoti_torch_get_data_ptr", data) && find("aoti_torch_get_dim", dims) &&
               find("aoti_torch_get_sizes", sizes) && find("aoti_torch_get_strides", strides) &&
               find("aoti_torch_get_dtype", dtype) && find("aoti_torch_get_device_type", device) &&
               find("aoti_torch_delete_tensor_object", release) && find("aoti_torch_device_type_cpu", cpu_code);
    if (!complete) return;
    cpu = cpu_code();
    const py::object module = py::getattr(py::module_::import("torch._C"), "_aoti", py::none());
    make = py::getattr(module, "unsafe_alloc_void_ptr_from_tensor", py::none());
    complete = !make.is_none();
  }
};

const StableApi& api() {
  static const StableApi& loaded = *new StableApi;  // never destroyed: it holds a Python object
  return loaded;
}

}  // namespace

uint64_t version_of(PyObject* dict) {
#if PY_VERSION_HEX < 0x030C0000
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#else
  static uint64_t unknown = 0;
  return dict != nullptr ? ++unknown : 0;
#endif
}

Slot::Slot(Slot&& other) noexcept
    : tensor_(std::exchange(other.tensor_, nullptr)),
      handle_(std::exchange(other.handle_, nullptr)),
      dtype_code_(other.dtype_code_),
      dtype_(other.dtype_) {}

void Slot::release() {
  if (handle_ != nullptr) api().release(std::exchange(handle_, nullptr));
  Py_CLEAR(tensor_);
}

void Slot::hold(PyObject* tensor, const TensorView& view) {
  release();
  if (!api().complete || view.count() > largest_held) return;
  const py::object capsule = api().make(py::handle(tensor));
  if (!PyCapsule_CheckExact(capsule.ptr())) return;
  handle_ = PyCapsule_GetPointer(capsule.ptr(), PyCapsule_GetName(capsule.ptr()));
  if (handle_ == nullptr) throw py::error_already_set();
  api().dtype(handle_, &dtype_code_);
  dtype_ = view.dtype;
  tensor_ = Py_NewRef(tensor);
}

bool Slot::read(TensorView& out) const {
  int64_t dims = 0;
  int64_t *shape = nullptr, *stride = nullptr;
  int32_t dtype = 0, device = 0;
  const StableApi& torch = api();
  const int32_t failed = torch.data(handle_, &out.data) | torch.dims(handle_, &dims) | torch.sizes(handle_, &shape) |
                         torch.strides(handle_, &stride) | torch.dtype(handle_, &dtype) |
                         torch.device(handle_, &device);
  out.dims = static_cast<int>(dims);
  out.shape = shape;
  out.stride = stride;
  out.dtype = dtype_;
  const bool plain = reinterpret_cast<uintptr_t>(out.data) >= lowest_plain_address;
  return failed == 0 && plain && dtype == dtype_code_ && device == torch.cpu;
}

}  // namespace onepass
