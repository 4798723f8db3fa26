#include "native.hpp"

#include <dlfcn.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

namespace py = pybind11;

namespace onepass {
namespace {

constexpr size_t impl_words = 22;  // of a TensorImpl that are searched: all that it has in torch 2.13
constexpr size_t nowhere = SIZE_MAX;

template <class Function>
bool find(const char* name, Function& out) {
  void* const library = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY);
  out = library != nullptr ? reinterpret_cast<Function>(dlsym(library, name)) : nullptr;
  return out != nullptr;
}

bool find_code(const char* name, int32_t& out) {
  int32_t (*code)() = nullptr;
  if (!find(name, code)) return false;
  out = code();
  return true;
}

const uintptr_t* words_at(uintptr_t address) { return reinterpret_cast<const uintptr_t*>(address); }
uintptr_t impl_of(const py::object& tensor) { return tensor.attr("_cdata").cast<uintptr_t>(); }

// The offset of the one word that `matches`; nowhere if there is none or several.
template <class Matches>
size_t offset_of(size_t words, const Matches& matches) {
  size_t found = nowhere;
  for (size_t i = 0; i < words; ++i) {
    if (!matches(i)) continue;
    if (found != nowhere) return nowhere;
    found = i * sizeof(uintptr_t);
  }
  return found;
}

// Tensors of several origins: new, a parameter, its gradient, a view.
std::vector<py::object> samples() {
  const py::module_ torch = py::module_::import("torch");
  const py::object plain = torch.attr("arange")(6, py::arg("dtype") = torch.attr("float32"), py::arg("device") = "cpu");
  const py::object parameter = torch.attr("nn").attr("Parameter")(plain.attr("clone")());
  parameter.attr("grad") = plain.attr("clone")();
  return {plain, parameter, parameter.attr("grad"), plain.attr("view")(2, 3).attr("t")()};
}

}  // namespace

const Native& Native::of_torch() {
  static const Native found;
  return found;
}

Native::Native() {
#ifndef Py_GIL_DISABLED
  available_ = find_functions() && find_places() && find_flag() && works();
#endif
}

bool Native::find_functions() {
  return find("aoti_torch_get_data_ptr", data_) && find("aoti_torch_get_dim", dims_) &&
         find("aoti_torch_get_sizes", sizes_) && find("aoti_torch_get_strides", strides_) &&
         find("aoti_torch_get_dtype", dtype_) && find("aoti_torch_get_device_type", device_) &&
         find("aoti_torch_get_layout", layout_) && find("aoti_torch_new_tensor_handle", keep_) &&
         find("aoti_torch_delete_tensor_object", release_) &&
         find("_ZNK3c1010TensorImpl4gradEv", gradient_) &&                               // TensorImpl::grad() const
         find("_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE", bump_version_) &&  // bump_version(const Tensor&)
         find_code("aoti_torch_device_type_cpu", cpu_) && find_code("aoti_torch_device_type_cuda", cuda_) &&
         find("aoti_torch_get_device_index", index_) && find_code("aoti_torch_layout_strided", strided_) &&
         find_code("aoti_torch_dtype_float32", dtype_codes_[0]) &&
         find_code("aoti_torch_dtype_float64", dtype_codes_[1]) &&
         find_code("aoti_torch_dtype_bfloat16", dtype_codes_[2]) &&
         find_code("aoti_torch_dtype_float16", dtype_codes_[3]) &&
         find_code("aoti_torch_dtype_int16", dtype_codes_[4]) && find_code("aoti_torch_dtype_uint8", dtype_codes_[5]);
}

bool Native::find_places() {
  size_t in_object = nowhere, in_impl = nowhere;
  for (const py::object& tensor : samples()) {
    const auto object = reinterpret_cast<uintptr_t>(tensor.ptr());
    const uintptr_t impl = impl_of(tensor);
    const size_t words = static_cast<size_t>(Py_TYPE(tensor.ptr())->tp_basicsize) / sizeof(uintptr_t);
    const size_t first = offset_of(words, [&](size_t i) { return words_at(object)[i] == impl; });
    const size_t second =
        offset_of(impl_words, [&](size_t i) { return (words_at(impl)[i] & ~uintptr_t{3}) == object; });
    if (first == nowhere || second == nowhere) return false;
    if (in_object != nowhere && (in_object != first || in_impl != second)) return false;
    in_object = first;
    in_impl = second;
  }
  impl_in_object_ = in_object;
  object_in_impl_ = in_impl;
  return true;
}

// The imaginary part of a conjugate is a lazily negated view: one word, alike in all plain ones, differs in one bit.
bool Native::find_flag() {
  const py::module_ torch = py::module_::import("torch");
  std::vector<py::object> alive;
  std::vector<const uintptr_t*> plain, negated;
  for (int i = 0; i < 4; ++i) {
    const py::object z = torch.attr("zeros")(2, py::arg("dtype") = torch.attr("complex64"), py::arg("device") = "cpu");
    alive.push_back(z.attr("imag"));
    plain.push_back(words_at(impl_of(alive.back())));
    alive.push_back(z.attr("conj")().attr("imag"));
    negated.push_back(words_at(impl_of(alive.back())));
  }
  flags_in_impl_ = offset_of(impl_words, [&](size_t i) {
    const uintptr_t bit = plain[0][i] ^ negated[0][i];
    if (__builtin_popcountll(bit) != 1) return false;
    for (size_t k = 0; k < plain.size(); ++k) {
      if (plain[k][i] != plain[0][i] || negated[k][i] != (plain[0][i] | bit)) return false;
    }
    negated_ = bit;
    return true;
  });
  return flags_in_impl_ != nowhere && alive.back().attr("is_neg")().cast<bool>();
}

// What it says of known tensors is what torch says of them.
bool Native::works() {
  const std::vector<py::object> tensors = samples();
  undefined_ = impl(gradient_(impl(of(tensors[0].ptr()))));
  for (const py::object& tensor : tensors) {
    const Tensor native = of(tensor.ptr());
    const py::object grad = tensor.attr("grad");
    const Tensor found = gradient(native);
    if (grad.is_none() ? found != nullptr : found == nullptr || object_of(found) != grad.ptr()) return false;
    TensorView view;
    if (!read(native, view) || view.dtype != Dtype::f32) return false;
    if (reinterpret_cast<uintptr_t>(view.data) != tensor.attr("data_ptr")().cast<uintptr_t>()) return false;
    const auto shape = tensor.attr("shape").cast<std::vector<int64_t>>();
    const auto stride = tensor.attr("stride")().cast<std::vector<int64_t>>();
    if (!std::equal(view.shape, view.shape + view.dims, shape.begin(), shape.end())) return false;
    if (!std::equal(view.stride, view.stride + view.dims, stride.begin(), stride.end())) return false;
    const int before = tensor.attr("_version").cast<int>();
    bump_version(native);
    if (tensor.attr("_version").cast<int>() != before + 1) return false;
  }
  return true;
}

bool Native::find_device(Tensor tensor, int& out) const {
  int32_t type = 0, index = on_host;
  if (device_(tensor, &type) != 0) return false;
  if (type != cpu_ && (!reads_cuda || type != cuda_ || index_(tensor, &index) != 0)) return false;
  out = index;
  return true;
}

bool Native::read(Tensor tensor, TensorView& out) const {
  if (impl(tensor) == nullptr || is_negated(tensor) || !find_device(tensor, out.device)) return false;
  int32_t layout = 0, dtype = 0;
  if (layout_(tensor, &layout) != 0 || layout != strided_) return false;
  int64_t dims = 0;
  int64_t *shape = nullptr, *stride = nullptr;
  if ((dtype_(tensor, &dtype) | dims_(tensor, &dims) | sizes_(tensor, &shape) | strides_(tensor, &stride) |
       data_(tensor, &out.data)) != 0) {
    return false;
  }
  int code = 0;
  while (code < 6 && dtype_codes_[code] != dtype) ++code;
  out.dtype = static_cast<Dtype>(code);
  out.dims = static_cast<int>(dims);
  out.shape = shape;
  out.stride = stride;
  return code < 6 && reinterpret_cast<uintptr_t>(out.data) >= lowest_plain_address;
}

Native::Tensor Native::keep(Tensor tensor) const {
  Tensor kept = nullptr;
  return keep_(tensor, &kept) == 0 ? kept : nullptr;
}

}  // namespace onepass
