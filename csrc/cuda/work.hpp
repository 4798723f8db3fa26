// What the kernels of a device are given: plain data, most of it in the device's memory.
#pragma once

#include "rules/scalars.hpp"
#include "rules/segment.hpp"

namespace onepass {

// A piece of a segment: its elements from number * chunk_elements on.
struct Chunk {
  uint32_t segment, number;
};

// What became of the last step, and of all before it.
struct StepResult {
  double norm, coefficient;
  double unscale;            // what the gradients lacked
  int64_t applied, skipped;  // steps so far
  int64_t draw;              // number of the step
  int32_t skip;              // it changes nothing: 1 for its own gradients, 2 for a GradScaler's word
  int32_t finite;            // no infinity and no NaN among the gradients that were measured
};

// The scalars of the tensors of a step, where they are not known before it runs on the device.
struct Source {
  uint32_t group;
  uint16_t new_ema, count_is_double;
  void* count;  // of steps done; null: the number of the step is `t`
  double t;
};

// A kernel that changes elements. Common combinations of types have one of their own, by their place in Common; then
// come those that take anything, in float and in double.
constexpr int common_kernels = 8, any_float = common_kernels, any_double = any_float + 1,
              update_kernels = any_double + 1;

constexpr int block_threads = 256, warp_lanes = 32;

// One launch of such a kernel.
struct Work {
  static constexpr int most_few = 16;
  const Segment* segments;
  const Chunk* chunks;
  int64_t count;              // of chunks
  int64_t chunk_elements;     // whole blocks of 8-bit states
  const Scalars* scalars;     // null: `few`, which travel with the launch
  const StepResult* outcome;  // null: nothing can skip the step
  Scalars few[most_few];

  // The elements [begin, end) of a segment that are chunk number `c`.
  struct Piece {
    const Segment& segment;
    int64_t begin, end;
  };
  ONEPASS_DEVICE Piece piece(int64_t c) const {
    const Segment& segment = segments[chunks[c].segment];
    const int64_t begin = chunks[c].number * chunk_elements, left = segment.count - begin;
    return {segment, begin, begin + (left < chunk_elements ? left : chunk_elements)};
  }

  ONEPASS_DEVICE const Scalars& scalars_of(const Segment& segment) const {
    return scalars != nullptr ? scalars[segment.scalars] : few[segment.scalars];
  }
};
static_assert(sizeof(Work) <= 4000, "what a launch may carry on any device");

// The sum of squares of a block of the flat range.
struct BlockSum {
  double sum;
  int64_t finite;
};

struct Measurement {
  const Segment* segments;
  int64_t count;     // of segments
  int64_t elements;  // of all of them
  BlockSum* sums;    // one for each block
};

// What comes before the update where something of it is known on the device only.
struct FinalizeScalars {
  StepResult* outcome;
  const BlockSum* sums;  // null: there is no norm to take
  int64_t blocks;
  double max_norm;
  double unscale;  // what the gradients lack, as far as the host knows
  bool skip_nonfinite;
  const float* grad_scale;  // of a GradScaler, or null
  const float* found_inf;   // or null
  const Group* groups;
  const Source* sources;
  int64_t count;     // of sources
  Scalars* scalars;  // one for each of them
};

}  // namespace onepass
