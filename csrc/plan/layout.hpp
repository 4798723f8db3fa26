// How the elements of several tensors of one shape lie in memory.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "rules/segment.hpp"

namespace onepass {

// Where a tensor's memory is: on a CUDA device by its number, or
constexpr int on_host = -1;

// A tensor as the binding reads it; shape and strides (in elements) belong to the tensor.
struct TensorView {
  void* data;
  Dtype dtype;
  int device;
  int dims;
  const int64_t* shape;
  const int64_t* stride;

  int64_t count() const {
    int64_t product = 1;
    for (int d = 0; d < dims; ++d) product *= shape[d];
    return product;
  }
};

// Whether a storage of so many bytes holds all elements of a tensor that starts `offset` elements into it.
inline bool fits(const TensorView& view, int64_t offset, int64_t bytes) {
  int64_t last = offset;
  for (int d = 0; d < view.dims; ++d) {
    if (view.shape[d] == 0) return true;
    last += (view.shape[d] - 1) * view.stride[d];
  }
  return (last + 1) * size_of(view.dtype) <= bytes;
}

inline bool is_floating(const TensorView& view) { return view.dtype <= Dtype::f16; }

inline bool same_shape(const TensorView& a, const TensorView& b) {
  bool same = a.dims == b.dims;
  for (int d = 0; same && d < a.dims; ++d) same = a.shape[d] == b.shape[d];
  return same;
}

// Of tensors of one shape: whether the same indices lead to the same places.
inline bool same_strides(const TensorView& a, const TensorView& b) {
  for (int d = 0; d < a.dims; ++d) {
    if (a.stride[d] != b.stride[d] && a.shape[d] != 1) return false;
  }
  return true;
}

// In the order of its indices, without gaps.
inline bool is_contiguous(const TensorView& view) {
  int64_t expected = 1;
  for (int d = view.dims - 1; d >= 0; --d) {
    if (view.shape[d] == 1) continue;
    if (view.stride[d] != expected) return false;
    expected *= view.shape[d];
  }
  return true;
}

bool strides_are_free_of_overlap(const TensorView& view);
bool strides_are_dense(const TensorView& view);

// No element lies at the address of another one. May say false for exotic strided views that do not overlap.
inline bool free_of_overlap(const TensorView& view) { return is_contiguous(view) || strides_are_free_of_overlap(view); }

// Every element of the tensor's memory range belongs to it, so that the tensor can be walked as a flat array.
inline bool is_dense(const TensorView& view) { return is_contiguous(view) || strides_are_dense(view); }

// The operands of one tensor, as far as it has them.
struct Operands {
  TensorView view[max_operands];
  bool has[max_operands] = {};
  float* scale[max_states] = {};
  int states = 0;
  bool quantized = false;
  bool same_strides = true;  // as the parameter, all of them
};

// Keeps the strides of tensors that do not share a layout.
class StridedStore {
 public:
  // The elements are taken in the order in which operand `leader` has them in memory.
  const Strided* add(const Operands& operands, int leader);
  void clear();
  bool empty() const { return views_.empty(); }

 private:
  std::deque<Strided> views_;
  std::deque<std::vector<int64_t>> numbers_;
};

}  // namespace onepass
