// The global norm of all gradients: the order in which it adds, so that it has the same bits on every device and for
// any number of threads, and what clipping makes of it.
#pragma once

#include <cmath>

#include "rules/device.hpp"
#include "rules/element.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// The flat range of all elements is cut into blocks. Within a block, element i is added to sum i % norm_lanes: enough
// independent sums to hide the latency of an addition, and as many as a warp has threads. Then halves are added to
// halves. The sums of the blocks are added up in the same way.
constexpr int64_t norm_block = 8192;
constexpr int norm_lanes = 32;

inline double fold(double* sums) {
  for (int half = norm_lanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

// The factor of the gradients: that of torch.nn.utils.clip_grad_norm_.
ONEPASS_DEVICE inline double clip_coefficient(double max_norm, double norm) {
  if (max_norm == infinity) return 1;
  const double ratio = max_norm / (norm + 1e-6);
  return ratio > 1 ? 1 : ratio;  // a NaN stays
}

}  // namespace
}  // namespace onepass
