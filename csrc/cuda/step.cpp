// How the extension for a device runs a plan.
#include "binding/step.hpp"
#include "binding/execute.hpp"
#include "cuda/engine.hpp"

namespace onepass {
namespace {

StepOptions with(const Clip* clip, StepOptions options) {
  if (clip != nullptr) {
    options.measures = true;
    options.max_norm = clip->max_norm;
    options.skip_nonfinite = clip->skip_nonfinite;
    options.unscale = clip->unscale;
  }
  return options;
}

}  // namespace

const bool reads_devices = true;

// Tensors are updated in no order, so they must not share memory.
bool check_aliasing(const Plan& plan, Memory& memory, bool&) { return plan.is_disjoint(memory.disjoint); }

bool takes_long(const Plan&, size_t) { return false; }

void take_norm(const Plan& plan, Memory& memory, Clip& clip, const Request& request) {
  const StepResult found = memory.engine->measure(plan, with(&clip, *request.options));
  clip.norm = found.norm;
  clip.coefficient = found.coefficient;
  clip.skipped = found.skip != 0;
}

bool clip_gradients(Plan& plan, Memory& memory, const Request& request, bool counted) {
  memory.engine->check(plan, with(request.clip, *request.options), counted);
  return true;
}

void run(const Plan& plan, Memory& memory, const Request& request, bool) {
  memory.engine->step(plan, with(request.clip, *request.options));
}

}  // namespace onepass
