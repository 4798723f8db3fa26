// How the extension for the CPU runs a plan.
#include "binding/step.hpp"

#include <cmath>

#include "binding/execute.hpp"
#include "cpu/execute.hpp"
#include "rules/norm.hpp"

namespace onepass {

const bool reads_devices = false;

bool check_aliasing(const Plan& plan, Memory& memory, bool& in_order) {
  in_order = uses_threads(plan) && !plan.is_disjoint(memory.disjoint);
  return true;
}

bool takes_long(const Plan& plan, size_t tensors) {
  // Python waits 5 ms before it asks a thread to give way. A million elements take half a millisecond, to hold a tensor
  // as long as several hundred elements.
  constexpr int64_t short_step = 1 << 20, long_step = 1 << 24, elements_per_tensor = 4096;
  const int64_t elements = plan.elements();
  return elements > long_step ||
         (elements > short_step && elements > elements_per_tensor * static_cast<int64_t>(tensors));
}

void take_norm(const Plan& plan, Memory&, Clip& clip, const Request&) {
  clip.norm = std::sqrt(square_sum(plan, isa())) * std::abs(clip.unscale);
  // The squares of float64 gradients may overflow where the gradients do not.
  clip.skipped = clip.skip_nonfinite && !std::isfinite(clip.norm) && !has_finite_gradients(plan);
  clip.coefficient = clip_coefficient(clip.max_norm, clip.norm);
}

bool clip_gradients(Plan& plan, Memory& memory, const Request& request, bool) {
  if (request.clip == nullptr) return true;
  Clip& clip = *request.clip;
  take_norm(plan, memory, clip, request);
  if (!clip.skipped) plan.scale_gradients(clip.coefficient);
  return !clip.skipped;
}

void run(const Plan& plan, Memory&, const Request&, bool in_order) { update(plan, isa(), in_order); }

}  // namespace onepass
