// The sums of squared gradients, one for each block of the flat range: a warp adds a block up, in the order of
// norm.hpp.
#pragma once

#include "cuda/vector.hpp"
#include "cuda/work.hpp"
#include "rules/norm.hpp"
#include "rules/numeric.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// What one lane has added up.
struct LaneSum {
  double sum = 0;
  bool finite = true;

  ONEPASS_DEVICE void add(double x) {
    sum += x * x;
    finite = finite && x - x == 0;
  }
};

template <class T>
ONEPASS_DEVICE inline void add_elements(const Segment& segment, int64_t from, int64_t to, LaneSum& sum) {
  const T* const grads = static_cast<const T*>(segment.data[grad]);
  if (segment.strided != nullptr) {
    for (int64_t i = from; i < to; i += norm_lanes) sum.add(widen(grads[offset_of(*segment.strided, grad, i)]));
    return;
  }
  constexpr int ahead = 8;  // loads in flight
  int64_t i = from;
  for (; i + (ahead - 1) * norm_lanes < to; i += ahead * norm_lanes) {
    T values[ahead];
    ONEPASS_UNROLL
    for (int j = 0; j < ahead; ++j) values[j] = grads[i + j * norm_lanes];
    ONEPASS_UNROLL
    for (int j = 0; j < ahead; ++j) sum.add(widen(values[j]));
  }
  for (; i < to; i += norm_lanes) sum.add(widen(grads[i]));
}

// Index of the segment that holds an element of the flat range.
ONEPASS_DEVICE inline int64_t segment_at(const Measurement& work, int64_t place) {
  int64_t low = 0, high = work.count;  // the first that starts after `place` is in [low, high]
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (work.segments[middle].start <= place) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}

ONEPASS_DEVICE inline LaneSum measure_lane(const Measurement& work, int64_t block, int lane) {
  LaneSum sum;
  const int64_t begin = block * norm_block;
  const int64_t end = begin + norm_block < work.elements ? begin + norm_block : work.elements;
  int64_t at = begin;
  for (int64_t s = segment_at(work, begin); at < end; ++s) {
    const Segment& segment = work.segments[s];
    const int64_t last = segment.start + segment.count, stop = last < end ? last : end;
    const int64_t first = at + (lane - (at - begin) % norm_lanes + norm_lanes) % norm_lanes;
    const int64_t from = first - segment.start, to = stop - segment.start;
    switch (segment.dtype[grad]) {
      case Dtype::f32:
        add_elements<float>(segment, from, to, sum);
        break;
      case Dtype::f64:
        add_elements<double>(segment, from, to, sum);
        break;
      case Dtype::bf16:
        add_elements<bf16>(segment, from, to, sum);
        break;
      case Dtype::f16:
        add_elements<f16>(segment, from, to, sum);
        break;
      default:
        break;
    }
    at = stop;
  }
  return sum;
}

}  // namespace
}  // namespace onepass
