// Which kernels run on this processor: decided once, when the extension is loaded.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.hpp"

namespace onepass {

struct Isa {
  const char* name;  // as ONEPASS_CPU spells it
  bool (*supported)();
  UpdateKernel update;
  SquareSumKernel square_sum;
  StreamKernel stream;
  GatherKernel gather;
};

// What was built in, the simplest first.
const std::vector<Isa>& built_isas();

// The best that the processor supports, or the one that the environment variable ONEPASS_CPU names.
// Throws std::runtime_error if that one is unknown or not supported here.
const Isa& isa();

}  // namespace onepass
