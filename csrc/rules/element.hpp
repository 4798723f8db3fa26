// The steps that ONE element takes on its way, in their order: small functors, their scalars in the compute type.
#pragma once

#include "rules/device.hpp"
#include "rules/segment.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr double infinity = __builtin_inf();

// Scales and limits the gradient and adds that of lambda * |p|: what has to happen before the coupled decay.
template <class C>
struct Preparation {
  C scale, clamp, strength;
  bool adds;  // even a zero would take the sign from a zero
  ONEPASS_DEVICE explicit Preparation(const Scalars& scalars)
      : scale(static_cast<C>(scalars.scale)),
        clamp(static_cast<C>(scalars.clamp)),
        strength(static_cast<C>(scalars.subgradient)),
        adds(scalars.subgradient != 0) {}
  ONEPASS_ELEMENT C operator()(C p, C g) const {
    const C scaled = scale * g;
    const C below = scaled > clamp ? clamp : scaled;  // a NaN passes
    const C limited = below < -clamp ? -clamp : below;
    return adds ? limited + (p > 0 ? strength : p < 0 ? -strength : C{0}) : limited;
  }
};

// Whether a gradient needs more preparation than its scale.
ONEPASS_DEVICE inline bool needs_preparation(const Scalars& scalars) {
  return scalars.subgradient != 0 || scalars.clamp < infinity;
}

// Whether the elements of a segment can be taken as they lie in memory, one by one, all in the same way.
ONEPASS_DEVICE inline bool is_even(const Segment& segment, const Scalars& scalars) {
  return segment.strided == nullptr && !segment.has(anchor) && !segment.quantized && !scalars.stochastic;
}

// Whether they need neither the steps before the decay nor those after the rule.
ONEPASS_DEVICE inline bool is_simple(const Segment& segment, const Scalars& scalars) {
  return is_even(segment, scalars) && !segment.has(ema) && scalars.threshold == 0 && !needs_preparation(scalars);
}

// Decay towards an anchor (L2-SP; Li, Grandvalet & Davoine, 2018): in the gradient, or decoupled from it.
template <class C>
struct Pull {
  C slope, pull;
  ONEPASS_DEVICE explicit Pull(const Scalars& scalars)
      : slope(static_cast<C>(scalars.anchor_slope)), pull(static_cast<C>(scalars.anchor_pull)) {}
  ONEPASS_ELEMENT void operator()(C& p, C& g, C to) const {
    const C distance = p - to;
    g = g + slope * distance;
    p = p - pull * distance;
  }
};

// Weight decay: coupled (in the gradient), and decoupled from it.
template <class C>
struct Decay {
  C coupled, shrink;
  bool couples;  // 0 * infinity must not reach the gradient
  ONEPASS_DEVICE explicit Decay(const Scalars& scalars)
      : coupled(static_cast<C>(scalars.coupled)),
        shrink(static_cast<C>(scalars.shrink)),
        couples(scalars.coupled != 0) {}
  ONEPASS_ELEMENT void operator()(C& p, C& g) const {
    g = couples ? g + coupled * p : g;
    p = p * shrink;
  }
};

// Scale, decay, rule: all that a step without further options is.
template <template <class> class Rule, class C>
struct Update {
  using Number = C;
  C scale;
  Decay<C> decay;
  Rule<C> rule;
  ONEPASS_DEVICE explicit Update(const Scalars& scalars)
      : scale(static_cast<C>(scalars.scale)), decay(scalars), rule(scalars.rule) {}
  template <class... State>
  ONEPASS_ELEMENT void operator()(C& p, C g, State&... state) const {
    g = scale * g;
    decay(p, g);
    rule(p, g, state...);
  }
};

// Proximal step of lambda * |p| (soft threshold; Parikh & Boyd, 2014, section 6.5.2): leaves exact zeros.
template <class C>
struct SoftThreshold {
  C threshold;
  bool shrinks;
  ONEPASS_DEVICE explicit SoftThreshold(const Scalars& scalars)
      : threshold(static_cast<C>(scalars.threshold)), shrinks(scalars.threshold != 0) {}
  ONEPASS_ELEMENT C operator()(C p) const {
    const C above = p > threshold ? p - threshold : C{0};
    const C below = p < -threshold ? p + threshold : above;
    return shrinks && p == p ? below : p;
  }
};

// A step with options: nothing is left out but what takes an operand of its own.
template <template <class> class Rule, class C>
struct FullUpdate {
  using Number = C;
  Preparation<C> prepare;
  Decay<C> decay;
  Rule<C> rule;
  SoftThreshold<C> threshold;
  ONEPASS_DEVICE explicit FullUpdate(const Scalars& scalars)
      : prepare(scalars), decay(scalars), rule(scalars.rule), threshold(scalars) {}
  template <class... State>
  ONEPASS_ELEMENT void operator()(C& p, C g, State&... state) const {
    g = prepare(p, g);
    decay(p, g);
    rule(p, g, state...);
    p = threshold(p);
  }
};

// Exponential moving average of the weights.
template <class C>
struct Ema {
  C weight;
  ONEPASS_DEVICE explicit Ema(const Scalars& scalars) : weight(static_cast<C>(scalars.ema_weight)) {}
  ONEPASS_ELEMENT C operator()(C p, C mean) const { return mean + weight * (p - mean); }
};

}  // namespace
}  // namespace onepass
