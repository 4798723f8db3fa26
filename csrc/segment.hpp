// What one step will touch: a segment per tensor, with the addresses, types and layout of its operands.
#pragma once

#include <cstdint>

namespace onepass {

enum class Dtype : uint8_t { f32, f64, bf16, f16 };

constexpr int max_states = 3;
constexpr int max_operands = 2 + max_states;  // in this order everywhere: param, grad, states
constexpr int param = 0, grad = 1, first_state = 2;

// What a rule prepares for one step: its effective learning rate and the scalars of its constructor.
struct Prepared {
  double rate;
  double rule[8];
};

// All numbers that the elements of a segment share. The gradient becomes
//   g = sign(maximize) / grad_scale * g + coupled * p + subgradient * sign(p),
// the parameter p *= shrink before the rule and sign(p) * max(|p| - threshold, 0) after it.
struct Scalars {
  double scale = 1;
  double coupled = 0;
  double shrink = 1;
  double subgradient = 0;
  double threshold = 0;
  double rule[8] = {};
};

// Strides of operands that do not share one dense layout: dimensions from the outermost to the innermost of `param`,
// adjacent ones merged where every operand allows it.
struct Strided {
  int dims;
  const int64_t* shape;
  const int64_t* stride[max_operands];
};

struct Segment {
  void* data[max_operands];
  Dtype dtype[max_operands];
  uint8_t operands;
  uint8_t rule;
  uint32_t scalars;        // index into the plan's list
  const Strided* strided;  // null: all operands are dense in the same order
  int64_t count;           // elements
  int64_t start;           // of its first element in the flat range of the whole step
};

}  // namespace onepass
