// What is known only on the device before an update: the norm, whether the step is skipped, its number, and with these
// the scalars. One block of threads does it.
#pragma once

#include "cuda/measure.hpp"
#include "rules/program.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

ONEPASS_DEVICE inline double number_at(const void* at, bool is_double) {
  return is_double ? *static_cast<const double*>(at) : static_cast<double>(*static_cast<const float*>(at));
}

// First, a warp adds up the sums of the blocks.
ONEPASS_DEVICE inline LaneSum sum_of_blocks(const FinalizeScalars& work, int lane) {
  LaneSum sum;
  for (int64_t i = lane; i < work.blocks; i += norm_lanes) {
    sum.sum += work.sums[i].sum;
    sum.finite = sum.finite && work.sums[i].finite != 0;
  }
  return sum;
}

// Then one thread decides.
ONEPASS_DEVICE inline void decide(const FinalizeScalars& work, double sum, bool finite) {
  StepResult& out = *work.outcome;
  out.unscale = work.grad_scale != nullptr ? 1.0 / static_cast<double>(*work.grad_scale) : 1.0;
  out.norm = std::sqrt(sum) * std::fabs(work.unscale * out.unscale);
  out.coefficient = work.sums != nullptr ? clip_coefficient(work.max_norm, out.norm) : 1;
  out.finite = finite;
  const bool found = work.found_inf != nullptr && *work.found_inf > 0;
  out.skip = found ? 2 : work.skip_nonfinite && !finite ? 1 : 0;
  out.draw = out.applied;
  (out.skip != 0 ? out.skipped : out.applied) += 1;
}

// Then all threads prepare the scalars and count the step.
ONEPASS_DEVICE inline void prepare(const FinalizeScalars& work, int thread, int threads) {
  const StepResult& outcome = *work.outcome;
  if (outcome.skip) return;
  for (int64_t i = thread; i < work.count; i += threads) {
    const Source& source = work.sources[i];
    Group group = work.groups[source.group];
    for (int k = 0; k < group.on_device; ++k) {
      const OnDevice& number = group.device[k];
      group.number[number.place] =
          number.kind == OnDevice::program
              ? evaluate(static_cast<const Instruction*>(number.at), static_cast<double>(outcome.draw))
              : number_at(number.at, number.kind == OnDevice::f64);
    }
    group.draw = static_cast<uint64_t>(outcome.draw);
    double t = source.t;
    if (source.count != nullptr) {
      t = number_at(source.count, source.count_is_double != 0) + 1;
      if (source.count_is_double) {
        *static_cast<double*>(source.count) = t;
      } else {
        *static_cast<float*>(source.count) = static_cast<float>(t);
      }
    }
    Scalars scalars = scalars_of(group, t, source.new_ema != 0);
    scalars.scale = scalars.scale * outcome.unscale * outcome.coefficient;
    work.scalars[i] = scalars;
  }
}

}  // namespace
}  // namespace onepass
