// Reads tensors without Python, which is quick: through functions of the libtorch that is already loaded (its stable C
// interface, torch/csrc/inductor/aoti_torch/c/shim.h, and two functions of its C++ one), and through two pointers and a
// flag whose places are searched for, and checked, on tensors of known contents.
#pragma once

#include <pybind11/pybind11.h>

#include "layout.hpp"

namespace onepass {

// Below this address no tensor can be told from an offset into a storage that has lost its memory.
constexpr uintptr_t lowest_plain_address = uintptr_t{1} << 40;

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

  // Where torch is not as expected, `available` is false and nothing else may be called.
  static const Native& of_torch();
  bool available() const { return available_; }

  // The tensor that a Python object holds; it lives as long as the object. `object` must be a torch.Tensor.
  Tensor of(PyObject* object) const { return reinterpret_cast<char*>(object) + impl_in_object_; }

  // The Python object of a tensor, borrowed, or null: torch makes one when Python first asks for it.
  PyObject* object_of(Tensor tensor) const {
    return reinterpret_cast<PyObject*>(word(impl(tensor), object_in_impl_) & ~uintptr_t{3});
  }

  // The .grad of a tensor, or null. It lives as long as it stays there.
  Tensor gradient(Tensor tensor) const {
    const Tensor found = gradient_(impl(tensor));
    return impl(found) == undefined_ ? nullptr : found;
  }

  // Whether its numbers stand in memory with the other sign.
  bool is_negated(Tensor tensor) const { return (word(impl(tensor), flags_in_impl_) & negated_) != 0; }

  // False if it is anything but numbers at an address: on another device, of another layout or dtype, lazily negated.
  bool read(Tensor tensor, TensorView& out) const;

  // Tells autograd that the tensor was changed in place.
  void bump_version(Tensor tensor) const { bump_version_(tensor); }

  // Another reference to the same tensor, until `release`; null if there is no memory for it.
  Tensor keep(Tensor tensor) const;
  void release(Tensor kept) const { release_(kept); }

  // Asks the processor to fetch what `read` will touch.
  void prefetch(Tensor tensor) const {
    const char* const start = static_cast<const char*>(impl(tensor));
    for (int line = 0; line < 3; ++line) __builtin_prefetch(start + 64 * line);
  }

 private:
  Native();
  bool find_functions();
  bool find_device(Tensor tensor, int& out) const;
  bool find_places();
  bool find_flag();
  bool works();

  static void* impl(Tensor tensor) { return *static_cast<void**>(tensor); }
  static uintptr_t word(const void* start, size_t offset) {
    return *reinterpret_cast<const uintptr_t*>(static_cast<const char*>(start) + offset);
  }

  template <class T>
  using Getter = int32_t (*)(Tensor, T*);

  bool available_ = false;
  Getter<void*> data_ = nullptr;
  Getter<int64_t> dims_ = nullptr;
  Getter<int64_t*> sizes_ = nullptr;
  Getter<int64_t*> strides_ = nullptr;
  Getter<int32_t> dtype_ = nullptr;
  Getter<int32_t> device_ = nullptr;
  Getter<int32_t> index_ = nullptr;
  Getter<int32_t> layout_ = nullptr;
  Getter<Tensor> keep_ = nullptr;
  int32_t (*release_)(Tensor) = nullptr;
  Tensor (*gradient_)(const void* impl) = nullptr;
  void (*bump_version_)(Tensor) = nullptr;

  int32_t cpu_ = 0, cuda_ = 0, strided_ = 0;
  int32_t dtype_codes_[6] = {};  // by Dtype
  const void* undefined_ = nullptr;
  size_t impl_in_object_ = 0, object_in_impl_ = 0, flags_in_impl_ = 0;
  uintptr_t negated_ = 0;
};

}  // namespace onepass
