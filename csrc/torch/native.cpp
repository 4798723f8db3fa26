#include "torch/native.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "torch/library.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

bool find_code(const char* name, int32_t& out) {
  int32_t (*code)() = nullptr;
  if (!find_in_torch(name, code)) return false;
  out = code();
  return true;
}

}  // namespace

const Native& Native::of_torch(bool directly) {
  static const Native by_functions(false), with_objects(true);
  return directly ? with_objects : by_functions;
}

Native::Native([[maybe_unused]] bool directly) {
#ifndef Py_GIL_DISABLED
  try {
    if (!find_functions()) return;
    layout_ = TensorLayout::find();
    if (!layout_.lead_to_impl()) return;
    if (directly && layout_.lead_to_data() && !find_sizes()) most_dims_ = -1;
    available_ = self_test();
    if (!available_ && reads_objects()) {
      most_dims_ = -1;
      available_ = self_test();
    }
  } catch (py::error_already_set&) {  // torch is in a mode in which its tensors are not what they seem
  }
#endif
}

bool Native::find_functions() {
  const auto find = [](const char* name, auto& out) { return find_in_torch(name, out); };
  return find("aoti_torch_get_data_ptr", data_) && find("aoti_torch_get_dim", dims_) &&
         find("aoti_torch_get_sizes", sizes_) && find("aoti_torch_get_strides", strides_) &&
         find("aoti_torch_get_dtype", dtype_) && find("aoti_torch_get_device_type", device_) &&
         find("aoti_torch_get_layout", layout_code_) && find("aoti_torch_get_storage_offset", offset_) &&
         find("aoti_torch_get_storage_size", bytes_) && find("aoti_torch__reinterpret_tensor", alias_) &&
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

// A TensorImpl holds the sizes and strides of tensors of few dimensions itself.
bool Native::find_sizes() {
  for (const py::object& tensor : TensorLayout::samples()) {
    const Tensor native = of(tensor.ptr());
    const auto start = reinterpret_cast<uintptr_t>(impl(native));
    int64_t *sizes = nullptr, *strides = nullptr;
    if ((sizes_(native, &sizes) | strides_(native, &strides)) != 0) return false;
    const size_t first = reinterpret_cast<uintptr_t>(sizes) - start,
                 second = reinterpret_cast<uintptr_t>(strides) - start;
    if (most_dims_ >= 0 && (sizes_in_impl_ != first || strides_in_impl_ != second)) return false;
    if (second <= first || second - first > 64 * sizeof(int64_t)) return false;
    sizes_in_impl_ = first;
    strides_in_impl_ = second;
    most_dims_ = static_cast<int64_t>((second - first) / sizeof(int64_t));
  }
  return true;
}

// What it says of known tensors is what torch says of them: when it sees their kind for the first time, and again.
bool Native::self_test() {
  const std::vector<py::object> tensors = TensorLayout::samples();
  undefined_ = impl(gradient_(impl(of(tensors[0].ptr()))));
  for (const py::object& tensor : tensors) {
    const Tensor native = of(tensor.ptr());
    const py::object grad = tensor.attr("grad");
    const Tensor found = gradient(native);
    if (grad.is_none() ? found != nullptr : found == nullptr || object_of(found) != grad.ptr()) return false;
    if (!verify(tensor) || !verify(tensor)) return false;
    const int before = tensor.attr("_version").cast<int>();
    bump_version(native);
    if (tensor.attr("_version").cast<int>() != before + 1) return false;
  }
  const py::object torch = py::module_::import("torch");
  const py::object shrunk =
      torch.attr("zeros")(64, py::arg("dtype") = torch.attr("float32"), py::arg("device") = "cpu");
  TensorView seen;
  if (!verify(shrunk)) return false;
  shrunk.attr("untyped_storage")().attr("resize_")(252);
  if (!read(of(shrunk.ptr()), seen) || seen.data != nullptr) return false;
  const Tensor kept = keep_storage(of(shrunk.ptr()));
  if (kept == nullptr) return false;
  release(kept);
  if (!reads_objects()) return true;
  const py::object clone = py::module_::import("torch").attr("_lazy_clone")(tensors[0]);
  TensorView view, other;
  return read(of(clone.ptr()), view) && read(of(tensors[0].ptr()), other) && view.data != other.data && verify(clone) &&
         verify(tensors[0]);
}

bool Native::verify(py::handle tensor) const {
  TensorView view;
  if (!read(of(tensor.ptr()), view) || view.dtype != Dtype::f32 || view.device != on_host) return false;
  const auto shape = tensor.attr("shape").cast<std::vector<int64_t>>();
  const auto stride = tensor.attr("stride")().cast<std::vector<int64_t>>();
  return reinterpret_cast<uintptr_t>(view.data) == tensor.attr("data_ptr")().cast<uintptr_t>() &&
         std::equal(view.shape, view.shape + view.dims, shape.begin(), shape.end()) &&
         std::equal(view.stride, view.stride + view.dims, stride.begin(), stride.end());
}

bool Native::find_device(Tensor tensor, int& out) const {
  int32_t type = 0, index = on_host;
  if (device_(tensor, &type) != 0) return false;
  if (type != cpu_ && (!reads_cuda || type != cuda_ || index_(tensor, &index) != 0)) return false;
  out = index;
  return true;
}

bool Native::read_by_functions(Tensor tensor, TensorView& out) const {
  if (impl(tensor) == nullptr || (keys(tensor) & layout_.negated) != 0 || !find_device(tensor, out.device))
    return false;
  int32_t layout = 0, dtype = 0;
  if (layout_code_(tensor, &layout) != 0 || layout != strided_) return false;
  int64_t dims = 0, offset = 0, bytes = 0;
  int64_t *shape = nullptr, *stride = nullptr;
  if ((dtype_(tensor, &dtype) | dims_(tensor, &dims) | sizes_(tensor, &shape) | strides_(tensor, &stride) |
       offset_(tensor, &offset) | bytes_(tensor, &bytes) | data_(tensor, &out.data)) != 0) {
    return false;
  }
  int code = 0;
  while (code < 6 && dtype_codes_[code] != dtype) ++code;
  if (code == 6) return false;
  out.dtype = static_cast<Dtype>(code);
  out.dims = static_cast<int>(dims);
  out.shape = shape;
  out.stride = stride;
  if (!fits(out, offset, bytes)) out.data = nullptr;
  if (reads_objects() && known(tensor) == nullptr) remember(tensor, out);
  return true;
}

// `view` is what the functions say of the tensor. A kind of which the objects say something else is not remembered.
void Native::remember(Tensor tensor, const TensorView& view) const {
  LayoutKey& key = known_[next_known_];
  key = {type(tensor), keys(tensor), view.dtype, view.device};
  TensorView direct;
  const bool same = read_directly(tensor, direct) && direct.data == view.data && direct.dims == view.dims &&
                    direct.shape == view.shape && direct.stride == view.stride;
  if (same) {
    next_known_ = (next_known_ + 1) % known_.size();
  } else {
    key = {};
  }
}

Native::Tensor Native::keep_storage(Tensor tensor) const {
  constexpr int64_t empty = 0, stride = 1;
  Tensor kept = nullptr;
  return alias_(tensor, 1, &empty, &stride, 0, &kept) == 0 ? kept : nullptr;
}

}  // namespace onepass
