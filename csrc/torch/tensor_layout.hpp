// Where torch's objects keep what a step reads of a tensor: searched for on tensors of known contents.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onepass {

inline uintptr_t word_at(const void* start, size_t offset) {
  return *reinterpret_cast<const uintptr_t*>(static_cast<const char*>(start) + offset);
}

// Offsets in bytes.
struct TensorLayout {
  static constexpr size_t nowhere = SIZE_MAX;

  static TensorLayout find();

  // Tensors of several origins, all float32: new, a parameter, its gradient, views.
  static std::vector<pybind11::object> samples();

  size_t impl_in_object = nowhere;  // of the Python object: the address of its TensorImpl
  size_t object_in_impl = nowhere;  // of a TensorImpl: the address of its Python object, two bits aside
  size_t keys_in_impl = nowhere;    // its dispatch keys: layout, kind of device, lazy negation
  uintptr_t negated = 0;            // the bit of that
  uintptr_t tracked = 0;            // the bits of which tensors of inference mode have none
  size_t type_in_impl = nowhere;    // the word of its dtype, device and flags
  uintptr_t type_bits = 0;          // those of the word that have a meaning
  size_t storage_in_impl = nowhere;
  size_t dims_in_impl = nowhere;
  size_t offset_in_impl = nowhere;  // of the first element in the storage, in elements
  size_t data_in_storage = nowhere;
  size_t bytes_in_storage = nowhere;  // how many it has
  size_t flags_in_storage = nowhere;
  uintptr_t guarded = 0;  // the bits there that say: copy this memory before you write to it, or: it is gone

  // Whether a tensor's TensorImpl is found, and whether it is negated.
  bool lead_to_impl() const {
    return impl_in_object != nowhere && object_in_impl != nowhere && keys_in_impl != nowhere && tracked != 0;
  }

  // Whether, with its sizes and strides, all of a tensor is found.
  bool lead_to_data() const {
    return lead_to_impl() && type_in_impl != nowhere && storage_in_impl != nowhere && dims_in_impl != nowhere &&
           offset_in_impl != nowhere && data_in_storage != nowhere && bytes_in_storage != nowhere &&
           flags_in_storage != nowhere;
  }
};

}  // namespace onepass
