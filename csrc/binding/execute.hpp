// Where the extensions for the CPU and for devices part: each has a source file of its own for what is named here.
#pragma once

#include "binding/memory.hpp"
#include "plan/plan.hpp"

namespace onepass {

struct Request;
struct StepOptions;

// Whether groups may have numbers that stand in a device's memory.
extern const bool reads_devices;

// Clipping by the global norm, and what came of it.
struct Clip {
  double max_norm;      // infinity: only measure
  bool skip_nonfinite;  // do nothing if a gradient is not finite
  double unscale;       // the factor that the gradients still lack
  double norm = 0;
  double coefficient = 1;
  bool skipped = false;
};

// Settles what can be said of the plan before it is run. False if it cannot be run as it is.
bool check_aliasing(const Plan& plan, Memory& memory, bool& in_order);

// Whether a step takes so long that other Python threads should run meanwhile; `tensors` have to be held for that.
bool takes_long(const Plan& plan, size_t tensors);

// What comes before anything is written. False if the request's clip has skipped the step. `counted`: the host counts
// steps.
bool clip_gradients(Plan& plan, Memory& memory, const Request& request, bool counted);

// Updates everything.
void run(const Plan& plan, Memory& memory, const Request& request, bool in_order);

// Takes the norm of the gradients of a plan.
void take_norm(const Plan& plan, Memory& memory, Clip& clip, const Request& request);

}  // namespace onepass
