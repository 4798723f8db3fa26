// The sum of squared gradients, for the global norm: compiled once for each instruction set.
#include "cpu/kernels.hpp"
#include "cpu/prefetch.hpp"
#include "cpu/tile.hpp"
#include "rules/norm.hpp"

namespace onepass {
namespace {

template <class T>
void add_squares(const void* one_tile, double* __restrict sums) {
  const T* const values = static_cast<const T*>(one_tile);
  for (int64_t i = 0; i < tile; i += norm_lanes) {
    const char* const next = reinterpret_cast<const char*>(values + i) + ahead;
    for (int64_t byte = 0; byte < norm_lanes * int64_t{sizeof(T)}; byte += line) prefetch(next + byte);
    for (int lane = 0; lane < norm_lanes; ++lane) {
      const double value = static_cast<double>(widen(values[i + lane]));
      sums[lane] += value * value;
    }
  }
}
// By Dtype, the floating ones.
constexpr void (*adders[])(const void*, double*) = {add_squares<float>, add_squares<double>, add_squares<bf16>,
                                                    add_squares<f16>};

// Elements [at, at + n) of the flat range as a tile, filled up with zeros. `segment` moves on with them.
void collect(const Segment*& segment, int64_t at, int64_t n, double* values) {
  for (int64_t filled = 0; filled < n;) {
    const int64_t offset = at + filled - segment->start;
    const int64_t left = segment->count - offset;
    const int64_t length = left < n - filled ? left : n - filled;
    load(*segment, grad, offset, length, values + filled);
    filled += length;
    if (length == left) ++segment;
  }
  for (int64_t i = n; i < tile; ++i) values[i] = 0;
}

}  // namespace
}  // namespace onepass

double onepass::ONEPASS_KERNEL(square_sum)(const Segment* segment, int64_t begin, int64_t end) {
  alignas(64) double sums[norm_lanes] = {};
  alignas(64) double values[tile];
  for (int64_t at = begin; at < end; at += tile) {
    const int64_t n = end - at < tile ? end - at : tile, offset = at - segment->start;
    const Dtype dtype = segment->dtype[grad];
    if (segment->strided == nullptr && n == tile && segment->count - offset > n) {  // a whole tile as it lies in memory
      adders[static_cast<int>(dtype)](static_cast<const char*>(segment->data[grad]) + offset * size_of(dtype), sums);
    } else {
      collect(segment, at, n, values);
      add_squares<double>(values, sums);
    }
  }
  return fold(sums);
}
