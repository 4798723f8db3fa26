// The face of the kernels that are compiled once per instruction set.
#pragma once

#include "augment/warp.hpp"
#include "rules/segment.hpp"

namespace onepass {

// Updates elements [begin, end) of a segment. A block of an 8-bit state belongs to the range that holds its first
// element.
using UpdateKernel = void (*)(const Segment&, const Scalars&, int64_t begin, int64_t end);

// Sum of the squared gradients of elements [begin, end) of the flat range; `segments` starts with the one that holds
// `begin`. Every element's place in the flat range decides where it is added, so that the same numbers give the same
// sum however they are split into tensors.
using SquareSumKernel = double (*)(const Segment* segments, int64_t begin, int64_t end);

// Reads and writes the memory that `UpdateKernel` does, with no arithmetic and no change: the limit of any update.
// `nothing` must be 0.
using StreamKernel = void (*)(const Segment&, uint16_t nothing, int64_t begin, int64_t end);

// Warps items [begin, end) of a call: bands of pictures.
using GatherKernel = void (*)(const Warp&, int64_t begin, int64_t end);

// Beside those, `roots_are_exact`: whether the square roots of `UpdateKernel` are those of IEEE 754 on this processor.
// Takes some milliseconds.
#define ONEPASS_DECLARE(isa)                                                       \
  bool roots_are_exact_##isa();                                                    \
  void update_##isa(const Segment&, const Scalars&, int64_t begin, int64_t end);   \
  double square_sum_##isa(const Segment* segments, int64_t begin, int64_t end);    \
  void stream_##isa(const Segment&, uint16_t nothing, int64_t begin, int64_t end); \
  void gather_##isa(const Warp&, int64_t begin, int64_t end)
ONEPASS_DECLARE(portable);
ONEPASS_DECLARE(v3);
ONEPASS_DECLARE(v4);
#undef ONEPASS_DECLARE

}  // namespace onepass

// Names the function that a kernel source defines for the instruction set it is compiled for.
#define ONEPASS_JOIN(a, b) a##b
#define ONEPASS_NAME(a, b) ONEPASS_JOIN(a, b)
#define ONEPASS_KERNEL(name) ONEPASS_NAME(name##_, ONEPASS_ISA)
