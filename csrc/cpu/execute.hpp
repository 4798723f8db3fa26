// Runs plans on the CPU: one parallel region for all tensors of all groups.
#pragma once

#include "cpu/dispatch.hpp"
#include "plan/plan.hpp"

namespace onepass {

// Sum of the squares of all gradients as they are in memory.
double square_sum(const Plan& plan, const Isa& isa);

// No infinity and no NaN among the gradients. Slow: for the rare doubt.
bool has_finite_gradients(const Plan& plan);

// Whether an update of the plan takes more than one thread.
bool uses_threads(const Plan& plan);

// Updates everything. Threads take tensors in any order, or one thread takes them in turn.
void update(const Plan& plan, const Isa& isa, bool in_order);

// Moves the memory that `update` moves, in the same chunks, and changes nothing. All tensors must be dense.
void stream(const Plan& plan, const Isa& isa);

}  // namespace onepass
