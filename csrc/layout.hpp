// How the elements of several tensors of one shape lie in memory.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "segment.hpp"

namespace onepass {

// A tensor as the binding reads it; shape and strides (in elements) belong to the tensor.
struct TensorView {
  void* data;
  Dtype dtype;
  int dims;
  const int64_t* shape;
  const int64_t* stride;

  int64_t count() const;
};

bool same_shape(const TensorView& a, const TensorView& b);

// No element lies at the address of another one. May say false for exotic strided views that do not overlap.
bool free_of_overlap(const TensorView& view);

// Every element of the tensor's memory range belongs to it, so that the tensor can be walked as a flat array.
bool is_dense(const TensorView& view);

// True if the elements at the same place in memory are the same elements of all `n` tensors, which are dense.
bool share_dense_layout(const TensorView* views, int n);

// Keeps the strides of tensors that do not share a layout.
class StridedStore {
 public:
  const Strided* add(const TensorView* views, int n);
  void clear();
  bool empty() const { return views_.empty(); }

 private:
  std::deque<Strided> views_;
  std::deque<std::vector<int64_t>> numbers_;
};

}  // namespace onepass
