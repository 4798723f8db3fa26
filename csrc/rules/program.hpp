// A number as a function of the steps done, for devices that count them: a schedule, taken apart into instructions for
// a machine with a stack. python/onepass/schedule/program.py writes them.
#pragma once

#include <cmath>
#include <cstdint>

#include "rules/device.hpp"

namespace onepass {

enum class Op : int64_t {
  constant,  // pushes its value
  steps,     // pushes the number of steps done
  add,       // from here on: takes two numbers, pushes one
  subtract,
  multiply,
  divide,
  floor_divide,
  remainder,
  power,
  less,
  less_equal,
  sine,  // from here on: takes one, pushes one
  cosine,
  root,
  exp_minus_1,
  jump_unless,  // takes one; if it is 0, goes on so many instructions further
  jump,
  end,  // the last number is the result
};

struct Instruction {
  Op op;
  double value;
};

namespace {  // internal linkage: see numeric.hpp

constexpr int program_stack = 24;

ONEPASS_DEVICE inline double combined(Op op, double a, double b) {
  switch (op) {
    case Op::add:
      return a + b;
    case Op::subtract:
      return a - b;
    case Op::multiply:
      return a * b;
    case Op::divide:
      return a / b;
    case Op::floor_divide:
      return std::floor(a / b);
    case Op::remainder:
      return std::fmod(a, b);
    case Op::power:
      return std::pow(a, b);
    case Op::less:
      return a < b ? 1 : 0;
    default:
      return a <= b ? 1 : 0;
  }
}

ONEPASS_DEVICE inline double applied(Op op, double x) {
  switch (op) {
    case Op::sine:
      return std::sin(x);
    case Op::cosine:
      return std::cos(x);
    case Op::root:
      return std::sqrt(x);
    default:
      return std::expm1(x);
  }
}

// `program` has an end and fits the stack.
ONEPASS_DEVICE inline double evaluate(const Instruction* program, double steps) {
  double stack[program_stack];
  int top = 0;  // how many there are
  for (int64_t at = 0;; ++at) {
    const Instruction& next = program[at];
    if (next.op == Op::constant || next.op == Op::steps) {
      stack[top++] = next.op == Op::steps ? steps : next.value;
    } else if (next.op <= Op::less_equal) {
      --top;
      stack[top - 1] = combined(next.op, stack[top - 1], stack[top]);
    } else if (next.op <= Op::exp_minus_1) {
      stack[top - 1] = applied(next.op, stack[top - 1]);
    } else if (next.op == Op::end) {
      return stack[top - 1];
    } else if (next.op == Op::jump || stack[--top] == 0) {
      at += static_cast<int64_t>(next.value);
    }
  }
}

}  // namespace
}  // namespace onepass
