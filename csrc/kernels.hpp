// The face of the kernels that are compiled once per instruction set.
#pragma once

#include "picture.hpp"
#include "segment.hpp"

namespace onepass {

// Updates elements [begin, end) of a segment.
using UpdateKernel = void (*)(const Segment&, const Scalars&, int64_t begin, int64_t end);

// Warps items [begin, end) of a call: bands of pictures.
using GatherKernel = void (*)(const Warp&, int64_t begin, int64_t end);

#define ONEPASS_DECLARE(isa)                                                     \
  void update_##isa(const Segment&, const Scalars&, int64_t begin, int64_t end); \
  void gather_##isa(const Warp&, int64_t begin, int64_t end)
ONEPASS_DECLARE(portable);
ONEPASS_DECLARE(v3);
ONEPASS_DECLARE(v4);
#undef ONEPASS_DECLARE

}  // namespace onepass
