// What one step will touch: a segment per tensor, with the addresses, types and layout of its operands.
#pragma once

#include <cstdint>

#include "rules/device.hpp"

namespace onepass {

enum class Dtype : uint8_t { f32, f64, bf16, f16, i16, u8 };

ONEPASS_DEVICE constexpr int64_t size_of(Dtype dtype) {
  constexpr int64_t sizes[] = {4, 8, 2, 2, 2, 1};
  return sizes[static_cast<int>(dtype)];
}

// Operands, in this order everywhere. A tensor need not have all of them.
constexpr int param = 0, grad = 1, first_state = 2, max_states = 3;
constexpr int ema = first_state + max_states;
constexpr int anchor = ema + 1;     // the weights that anchor decay pulls to
constexpr int master = anchor + 1;  // what a bf16 parameter lacks of its float32 (i16), or the whole float32
constexpr int max_operands = master + 1;

// Elements that share one scale where a state is kept in 8 bits.
constexpr int64_t quantized_block = 256;

// What a rule prepares for one step: its effective learning rate and the scalars of its constructor.
struct Prepared {
  double rate;
  double rule[8];
};

// All numbers that the elements of a segment share, in the order in which they are used.
struct Scalars {
  double scale = 1;         // of the gradient: sign (maximize), 1 / grad_scale and clip coefficient in one
  double clamp;             // then |gradient| <= clamp
  double coupled = 0;       // then gradient += coupled * p
  double subgradient = 0;   // and gradient += subgradient * sign(p)
  double anchor_slope = 0;  // and gradient += anchor_slope * (p - anchor)
  double anchor_pull = 0;   // p -= anchor_pull * (p - anchor)
  double shrink = 1;        // p *= shrink
  double rule[8] = {};
  double threshold = 0;     // then p = sign(p) * max(|p| - threshold, 0)
  double ema_weight = 0;    // ema += ema_weight * (p - ema)
  bool stochastic = false;  // rounding of a bf16 or fp16 parameter
  uint64_t seed = 0;        // key of the random numbers
  uint64_t draw = 0;        // number of the step: the high half of their counter
};

// Strides of operands that do not share one dense layout: dimensions from the outermost to the innermost of `param`,
// adjacent ones merged where every operand allows it.
struct Strided {
  int dims;
  const int64_t* shape;
  const int64_t* stride[max_operands];
};

struct Segment {
  void* data[max_operands];  // null: the tensor has no such operand
  Dtype dtype[max_operands];
  float* scale[max_states];  // of the blocks of an 8-bit state
  uint8_t rule;
  uint8_t states;
  bool quantized;
  int8_t head;             // elements before the first where all operands can be read in vectors; -1: there is none
  uint32_t scalars;        // index into the plan's list
  const Strided* strided;  // null: all operands are dense in the same order
  int64_t count;           // elements
  int64_t start;           // of its first element in the flat range of the whole step

  ONEPASS_DEVICE bool has(int operand) const { return data[operand] != nullptr; }
};

namespace {  // internal linkage: see numeric.hpp

// Where element `i` of operand `k` lies, in elements.
ONEPASS_DEVICE inline int64_t offset_of(const Strided& view, int k, int64_t i) {
  int64_t offset = 0;
  for (int d = view.dims - 1; d >= 0; --d) {
    offset += i % view.shape[d] * view.stride[k][d];
    i /= view.shape[d];
  }
  return offset;
}

}  // namespace
}  // namespace onepass
