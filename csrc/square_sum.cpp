// The sum of squared gradients, for the global norm: compiled once for each instruction set.
#include "kernels.hpp"
#include "norm.hpp"
#include "tile.hpp"

namespace onepass {
namespace {

void add_squares(const double* __restrict values, double* __restrict sums) {
  for (int64_t i = 0; i < tile; i += norm_lanes) {
    for (int lane = 0; lane < norm_lanes; ++lane) sums[lane] += values[i + lane] * values[i + lane];
  }
}

}  // namespace
}  // namespace onepass

double onepass::ONEPASS_KERNEL(square_sum)(const Segment* segment, int64_t begin, int64_t end) {
  alignas(64) double sums[norm_lanes] = {};
  alignas(64) double values[tile];
  for (int64_t at = begin; at < end; at += tile) {
    const int64_t stop = end - at < tile ? end - at : tile;
    for (int64_t filled = 0; filled < stop;) {
      const int64_t offset = at + filled - segment->start;
      const int64_t left = segment->count - offset;
      const int64_t n = left < stop - filled ? left : stop - filled;
      load(*segment, grad, offset, n, values + filled);
      filled += n;
      if (n == left) ++segment;
    }
    for (int64_t i = stop; i < tile; ++i) values[i] = 0;
    add_squares(values, sums);
  }
  return fold(sums);
}
