// What an optimizer keeps from one step to the next. All of it is a hint: a step compares it with what it finds itself
// before it uses any, so that forgetting it changes nothing but the time of the next step.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "binding/group_cache.hpp"
#include "plan/plan.hpp"

namespace onepass {

class Engine;

struct Memory {
  int64_t steps_applied = 0;        // counted in the call that applies a step, so that nothing can come between
  std::vector<PyObject*> distinct;  // parameters, in the order of the groups, that are all different; never followed
  std::vector<Range> disjoint;      // memory that a plan writes and of which no two parts overlap
  GroupCache groups;                // as they were when they were last packed
  std::shared_ptr<Engine> engine;   // of the device that the parameters are on
};

}  // namespace onepass
