// How the extension for a device runs a plan.
#include "binding/execute.hpp"
#include "binding/step.hpp"
#include "cuda/engine.hpp"

namespace onepass {
namespace {

Order with(const Clip* clip, Order order) {
  if (clip != nullptr) {
    order.measures = true;
    order.max_norm = clip->max_norm;
    order.skip_nonfinite = clip->skip_nonfinite;
    order.unscale = clip->unscale;
  }
  return order;
}

}  // namespace

const bool reads_devices = true;

// Tensors are updated in no order, so they must not share memory.
bool admits(Plan& plan, Memory& memory) { return plan.is_disjoint(memory.disjoint); }

bool takes_long(const Plan&) { return false; }

void take_norm(const Plan& plan, Memory& memory, Clip& clip, const Request& request) {
  const Outcome found = memory.engine->measure(plan, with(&clip, *request.order));
  clip.norm = found.norm;
  clip.coefficient = found.coefficient;
  clip.skipped = found.skip != 0;
}

bool look_at(Plan& plan, Memory& memory, const Request& request, bool counted) {
  memory.engine->check(plan, with(request.clip, *request.order), counted);
  return true;
}

void run(const Plan& plan, Memory& memory, const Request& request) {
  memory.engine->step(plan, with(request.clip, *request.order));
}

}  // namespace onepass
