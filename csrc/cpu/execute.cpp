// How the extension for the CPU runs a plan.
#include <cmath>

#include "binding/execute.hpp"
#include "binding/step.hpp"
#include "rules/norm.hpp"

namespace onepass {
namespace {

// Above this many elements other Python threads may run while the kernels do.
constexpr int64_t release_gil_above = 65536;

}  // namespace

const bool reads_devices = false;

bool admits(Plan& plan, Memory& memory) {
  plan.settle_order(memory.disjoint);
  return true;
}

bool takes_long(const Plan& plan) { return plan.elements() > release_gil_above; }

void take_norm(const Plan& plan, Memory&, Clip& clip, const Request&) {
  clip.norm = std::sqrt(plan.square_sum(isa())) * std::abs(clip.unscale);
  // The squares of float64 gradients may overflow where the gradients do not.
  clip.skipped = clip.skip_nonfinite && !std::isfinite(clip.norm) && !plan.has_finite_gradients();
  clip.coefficient = clip_coefficient(clip.max_norm, clip.norm);
}

bool look_at(Plan& plan, Memory& memory, const Request& request, bool) {
  if (request.clip == nullptr) return true;
  Clip& clip = *request.clip;
  take_norm(plan, memory, clip, request);
  if (!clip.skipped) plan.scale_gradients(clip.coefficient);
  return !clip.skipped;
}

void run(const Plan& plan, Memory&, const Request&) { plan.run(isa()); }

}  // namespace onepass
