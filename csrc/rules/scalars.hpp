// From what the tensors of a group have in common and the number of a step to the scalars of its elements: in double,
// once per step.
#pragma once

#include "rules/element.hpp"
#include "rules/rules.hpp"

namespace onepass {

// A number of a group that a device finds out in each step: it stands in its memory, or a program gives it.
struct OnDevice {
  enum Kind : int32_t { f32, f64, program };  // a float, a double, instructions
  const void* at;
  Kind kind;
  int32_t place;  // of the number
  int64_t bytes;  // of a program
};

struct Group {
  // The numbers, in the order in which Python gives them.
#define ONEPASS_NUMBERS(NUMBER)                                                      \
  NUMBER(scale)            /* of the gradient: sign (maximize) and 1 / grad_scale */ \
  NUMBER(clamp)            /* of the gradient */                                     \
  NUMBER(coupled)          /* weight decay */                                        \
  NUMBER(subgradient)      /* l1_decay in the gradient */                            \
  NUMBER(anchor_coupled)   /* anchor decay in the gradient */                        \
  NUMBER(anchor_decoupled) /* the same, multiplied by the learning rate */           \
  NUMBER(decoupled)        /* weight decay, multiplied by the learning rate */       \
  NUMBER(proximal)         /* l1_decay after the update */                           \
  NUMBER(ema_decay)        /* of the average */                                      \
  NUMBER(stochastic)       /* rounding */                                            \
  NUMBER(hyper)            /* of the rule from here on, the learning rate first */
#define ONEPASS_SLOT(name) name,
#define ONEPASS_NUMBER_NAME(name) #name,
  enum : int { ONEPASS_NUMBERS(ONEPASS_SLOT) numbers = hyper + 8 };
  static constexpr const char* number_names[] = {ONEPASS_NUMBERS(ONEPASS_NUMBER_NAME)};
#undef ONEPASS_NUMBER_NAME
#undef ONEPASS_SLOT
#undef ONEPASS_NUMBERS
  double number[numbers];
  int32_t rule;
  int32_t on_device;  // how many of these there are
  OnDevice device[6];
  uint64_t seed, draw;  // of stochastic rounding
};

namespace {  // internal linkage: see numeric.hpp

template <template <class> class... Rule>
ONEPASS_DEVICE inline Prepared prepared(RuleList<Rule...>, int rule, const double* hyper, double t) {
  Prepared out{};
  int i = 0;
  ((i++ == rule ? void(out = Rule<double>::prepare(hyper, t)) : void()), ...);
  return out;
}

// The scalars of step number `t`, from 1. A new average starts as a copy of the parameter.
ONEPASS_DEVICE inline Scalars scalars_of(const Group& group, double t, bool new_ema) {
  const double* const n = group.number;
  const double lr = n[Group::hyper], anchored = n[Group::anchor_decoupled], decay = n[Group::decoupled];
  const Prepared rule = prepared(Rules{}, group.rule, n + Group::hyper, t);
  Scalars out;
  out.scale = n[Group::scale];
  out.clamp = n[Group::clamp];
  out.coupled = n[Group::coupled];
  out.subgradient = n[Group::subgradient];
  out.anchor_slope = n[Group::anchor_coupled];
  out.anchor_pull = anchored != 0 ? lr * anchored : 0;
  out.shrink = decay != 0 ? 1 - lr * decay : 1;
  for (int i = 0; i < 8; ++i) out.rule[i] = rule.rule[i];
  out.threshold = rule.rate * n[Group::proximal];
  out.ema_weight = new_ema ? 1 : 1 - n[Group::ema_decay];
  out.stochastic = n[Group::stochastic] != 0;
  out.seed = group.seed;
  out.draw = group.draw;
  return out;
}

}  // namespace
}  // namespace onepass
