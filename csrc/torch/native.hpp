// Reads tensors without Python, which is quick: through functions of the libtorch that is already loaded (its stable C
// interface, torch/csrc/inductor/aoti_torch/c/shim.h, and two functions of its C++ one) and, where a tensor is of a
// kind that these have told of before, from torch's objects themselves.
#pragma once

#include <pybind11/pybind11.h>

#include <array>

#include "cpu/prefetch.hpp"
#include "plan/layout.hpp"
#include "torch/tensor_layout.hpp"

namespace onepass {

// Whether this extension is the one for CUDA tensors.
#ifdef ONEPASS_READS_CUDA
constexpr bool reads_cuda = true;
#else
constexpr bool reads_cuda = false;
#endif

class Native {
 public:
  // The address of an at::Tensor: one pointer, to its TensorImpl.
  using Tensor = void*;

  // Found once for each `directly`: whether torch's objects may be read beside its functions. Where torch is not as
  // expected, `available` is false and nothing else may be called.
  static const Native& of_torch(bool directly);
  bool available() const { return available_; }

  // Whether `read` needs the functions only for tensors of kinds that it has not seen yet.
  bool reads_objects() const { return most_dims_ >= 0; }

  // The tensor that a Python object holds; it lives as long as the object. `object` must be a torch.Tensor.
  Tensor of(PyObject* object) const { return reinterpret_cast<char*>(object) + layout_.impl_in_object; }

  // The Python object of a tensor, borrowed, or null: torch makes one when Python first asks for it.
  PyObject* object_of(Tensor tensor) const {
    return reinterpret_cast<PyObject*>(word_at(impl(tensor), layout_.object_in_impl) & ~uintptr_t{3});
  }

  // The .grad of a tensor, or null. It lives as long as it stays there.
  Tensor gradient(Tensor tensor) const {
    const Tensor found = gradient_(impl(tensor));
    return impl(found) == undefined_ ? nullptr : found;
  }

  // Whether the tensor is one of inference mode, which autograd does not follow.
  bool is_inference(Tensor tensor) const { return (keys(tensor) & layout_.tracked) == 0; }

  // False if it is anything but numbers at an address: on another device, of another layout or dtype, lazily negated.
  // A tensor that reaches beyond its storage has a null address.
  bool read(Tensor tensor, TensorView& out) const {
    return read_directly(tensor, out) || read_by_functions(tensor, out);
  }

  // Tells autograd that the tensor was changed in place.
  void bump_version(Tensor tensor) const { bump_version_(tensor); }

  // A tensor without elements on the same storage, which stays until `release`; null if there is no memory for it.
  Tensor keep_storage(Tensor tensor) const;
  void release(Tensor kept) const { release_(kept); }

  // Asks the processor to fetch the TensorImpl.
  void prefetch(Tensor tensor) const {
    const char* const start = static_cast<const char*>(impl(tensor));
    for (int line = 0; line < 3; ++line) onepass::prefetch(start + 64 * line);
  }

 private:
  // What the functions have told of tensors with these two words, on which dtype and device depend.
  struct LayoutKey {
    uintptr_t type = 0, keys = 0;
    Dtype dtype = Dtype::f32;
    int device = on_host;
  };

  explicit Native(bool directly);
  bool find_functions();
  bool find_sizes();
  bool find_device(Tensor tensor, int& out) const;
  bool self_test();
  bool verify(pybind11::handle tensor) const;
  const LayoutKey* known(Tensor tensor) const;
  bool read_directly(Tensor tensor, TensorView& out) const;
  bool read_by_functions(Tensor tensor, TensorView& out) const;
  void remember(Tensor tensor, const TensorView& view) const;

  static void* impl(Tensor tensor) { return *static_cast<void**>(tensor); }
  uintptr_t keys(Tensor tensor) const { return word_at(impl(tensor), layout_.keys_in_impl); }
  uintptr_t type(Tensor tensor) const { return word_at(impl(tensor), layout_.type_in_impl) & layout_.type_bits; }
  const void* storage(Tensor tensor) const {
    return reinterpret_cast<const void*>(word_at(impl(tensor), layout_.storage_in_impl));
  }

  template <class T>
  using Getter = int32_t (*)(Tensor, T*);

  bool available_ = false;
  Getter<void*> data_ = nullptr;
  Getter<int64_t> dims_ = nullptr;
  Getter<int64_t*> sizes_ = nullptr;
  Getter<int64_t*> strides_ = nullptr;
  Getter<int64_t> offset_ = nullptr;
  Getter<int64_t> bytes_ = nullptr;
  Getter<int32_t> dtype_ = nullptr;
  Getter<int32_t> device_ = nullptr;
  Getter<int32_t> index_ = nullptr;
  Getter<int32_t> layout_code_ = nullptr;
  int32_t (*alias_)(Tensor, int64_t, const int64_t*, const int64_t*, int64_t, Tensor*) = nullptr;
  int32_t (*release_)(Tensor) = nullptr;
  Tensor (*gradient_)(const void* impl) = nullptr;
  void (*bump_version_)(Tensor) = nullptr;

  int32_t cpu_ = 0, cuda_ = 0, strided_ = 0;
  int32_t dtype_codes_[6] = {};  // by Dtype
  const void* undefined_ = nullptr;
  TensorLayout layout_;
  size_t sizes_in_impl_ = 0, strides_in_impl_ = 0;  // of tensors of few dimensions
  int64_t most_dims_ = -1;                          // of those; -1 where objects are not read
  mutable std::array<LayoutKey, 16> known_;         // guarded by the GIL
  mutable size_t next_known_ = 0;                   // the place of the next one, which takes that of the oldest
};

// Null if its kind has not been seen yet.
inline const Native::LayoutKey* Native::known(Tensor tensor) const {
  const uintptr_t own_type = type(tensor), own_keys = keys(tensor);
  for (const LayoutKey& key : known_) {
    if (key.type == own_type && key.keys == own_keys) return &key;
  }
  return nullptr;
}

// False if the functions have to be asked.
inline bool Native::read_directly(Tensor tensor, TensorView& out) const {
  const char* const start = static_cast<const char*>(impl(tensor));
  if (!reads_objects() || start == nullptr || storage(tensor) == nullptr) return false;
  const LayoutKey* const key = known(tensor);
  const auto dims = static_cast<int64_t>(word_at(start, layout_.dims_in_impl));
  if (key == nullptr || dims > most_dims_) return false;
  if ((word_at(storage(tensor), layout_.flags_in_storage) & layout_.guarded) != 0) return false;
  out.dtype = key->dtype;
  out.device = key->device;
  out.dims = static_cast<int>(dims);
  out.shape = reinterpret_cast<const int64_t*>(start + sizes_in_impl_);
  out.stride = reinterpret_cast<const int64_t*>(start + strides_in_impl_);
  const auto offset = static_cast<int64_t>(word_at(start, layout_.offset_in_impl));
  const auto bytes = static_cast<int64_t>(word_at(storage(tensor), layout_.bytes_in_storage));
  const uintptr_t data = word_at(storage(tensor), layout_.data_in_storage);
  out.data = fits(out, offset, bytes)
                 ? reinterpret_cast<void*>(data + static_cast<uintptr_t>(offset * size_of(key->dtype)))
                 : nullptr;
  return true;
}

}  // namespace onepass
