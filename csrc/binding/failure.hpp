// Why a step was not done.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace onepass {

// Nothing has been written.
struct StepFailure {
  using Pairs = std::vector<std::pair<size_t, size_t>>;  // (group, index in the group)

  std::vector<size_t> unsupported;  // numbers of groups that hold something the kernels do not cover
  Pairs missing_state;              // whose state is missing or cannot be used as it is
  Pairs mismatch;                   // whose parameter and gradient do not fit together or have no memory

  bool any() const { return !unsupported.empty() || !missing_state.empty() || !mismatch.empty(); }
};

}  // namespace onepass
