#include "plan/layout.hpp"

#include <algorithm>

namespace onepass {
namespace {

// Dimensions of more than one element, by descending stride.
std::vector<int> outer_to_inner(const TensorView& view) {
  std::vector<int> order;
  for (int d = 0; d < view.dims; ++d) {
    if (view.shape[d] > 1) order.push_back(d);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return view.stride[a] > view.stride[b]; });
  return order;
}

}  // namespace

bool strides_are_free_of_overlap(const TensorView& view) {
  const std::vector<int> order = outer_to_inner(view);
  int64_t reach = 0;  // offset of the last element of the dimensions seen so far
  for (auto d = order.rbegin(); d != order.rend(); ++d) {
    if (view.stride[*d] <= reach) return false;
    reach += (view.shape[*d] - 1) * view.stride[*d];
  }
  return true;
}

bool strides_are_dense(const TensorView& view) {
  const std::vector<int> order = outer_to_inner(view);
  int64_t expected = 1;
  for (auto d = order.rbegin(); d != order.rend(); ++d) {
    if (view.stride[*d] != expected) return false;
    expected *= view.shape[*d];
  }
  return true;
}

const Strided* StridedStore::add(const Operands& operands, int leader) {
  const std::vector<int> order = outer_to_inner(operands.view[leader]);
  std::vector<int64_t>& numbers = numbers_.emplace_back();
  const size_t dims = order.size();
  numbers.resize(dims * (max_operands + 1));
  int64_t* const shape = numbers.data();
  const auto stride = [&](int k) { return shape + dims * static_cast<size_t>(k + 1); };
  Strided& strided = views_.emplace_back();
  strided.shape = shape;
  for (int k = 0; k < max_operands; ++k) strided.stride[k] = stride(k);

  int merged = 0;  // dimensions written so far; the last one may still take in the next
  for (const int d : order) {
    const int64_t size = operands.view[param].shape[d];
    bool joins = merged > 0;
    for (int k = 0; k < max_operands && joins; ++k) {
      joins = !operands.has[k] || stride(k)[merged - 1] == operands.view[k].stride[d] * size;
    }
    if (joins) {
      shape[merged - 1] *= size;
    } else {
      shape[merged++] = size;
    }
    for (int k = 0; k < max_operands; ++k) {
      if (operands.has[k]) stride(k)[merged - 1] = operands.view[k].stride[d];
    }
  }
  strided.dims = merged;
  return &strided;
}

void StridedStore::clear() {
  views_.clear();
  numbers_.clear();
}

}  // namespace onepass
