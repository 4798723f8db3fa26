// Every update rule: what one step does to ONE element.
//
// A rule says what it is called, which states it keeps, which hyper-parameters it takes and whether it takes square
// roots: Python learns all of it from here. It prepares its scalars in double once per step from the hyper-parameters
// `h`, in the order of `hypers`, and the tensor's step number `t` (from 1), and is then called as rule(p, g,
// states...), in the order of `state`.
#pragma once

#include <cmath>
#include <cstdint>

#include "rules/device.hpp"
#include "rules/segment.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// What kind of number a state is, for its 8-bit code.
enum class StateKind : uint8_t { with_sign, nonnegative, maximum };

// A state of a rule: its name in torch's state dict and its kind.
struct State {
  const char* name = nullptr;  // there is none
  StateKind kind = StateKind::with_sign;
  constexpr State() = default;
  constexpr State(const char* its_name, StateKind its_kind) : name(its_name), kind(its_kind) {}
};

// As a function of the standard library, it would set errno where the compiler is not told otherwise.
template <class C>
ONEPASS_ELEMENT C square_root(C x) {
#ifdef __CUDA_ARCH__
  return std::sqrt(x);
#else
  if constexpr (sizeof(C) == sizeof(float)) {
    return __builtin_sqrtf(x);
  } else {
    return __builtin_sqrt(x);
  }
#endif
}

// As torch.maximum: NaN wins, whichever side it is on.
template <class C>
ONEPASS_ELEMENT C maximum(C a, C b) {
  const C larger = a > b ? a : b;  // b where either is NaN
  return a != a ? a : larger;
}

// A NaN stays.
template <class C>
ONEPASS_ELEMENT C at_least(C a, C least) {
  return a < least ? least : a;
}

// Stochastic gradient descent (Robbins & Monro, 1951).
template <class C>
struct Sgd {
  static constexpr const char* name = "sgd";
  static constexpr int states = 0;
  static constexpr State state[max_states] = {};
  static constexpr const char* hypers[] = {"lr"};
  static constexpr bool has_root = false;
  ONEPASS_DEVICE static Prepared prepare(const double* h, double) { return {h[0], {h[0]}}; }

  C lr;
  ONEPASS_DEVICE explicit Sgd(const double* s) : lr(static_cast<C>(s[0])) {}
  ONEPASS_ELEMENT void operator()(C& p, C g) const { p = p - lr * g; }
};

// SGD with momentum (Polyak, 1964; Nesterov's form as in Sutskever et al., 2013). The buffer of a tensor's first step
// is the gradient itself.
template <class C>
struct Momentum {
  static constexpr const char* name = "momentum";
  static constexpr int states = 1;
  static constexpr State state[max_states] = {{"momentum_buffer", StateKind::with_sign}};
  static constexpr const char* hypers[] = {"lr", "momentum", "dampening", "nesterov"};
  static constexpr bool has_root = false;
  ONEPASS_DEVICE static Prepared prepare(const double* h, double t) {
    const bool first = t <= 1;
    return {h[0], {h[0], first ? 0 : h[1], first ? 1 : 1 - h[2], h[1], h[3]}};
  }

  C lr, keep, take, momentum;
  bool nesterov;
  ONEPASS_DEVICE explicit Momentum(const double* s)
      : lr(static_cast<C>(s[0])),
        keep(static_cast<C>(s[1])),
        take(static_cast<C>(s[2])),
        momentum(static_cast<C>(s[3])),
        nesterov(s[4] != 0) {}
  ONEPASS_ELEMENT void operator()(C& p, C g, C& b) const {
    b = keep * b + take * g;
    p = p - lr * (nesterov ? g + momentum * b : b);
  }
};

// Adagrad (Duchi, Hazan & Singer, 2011).
template <class C>
struct Adagrad {
  static constexpr const char* name = "adagrad";
  static constexpr int states = 1;
  static constexpr State state[max_states] = {{"sum", StateKind::nonnegative}};
  static constexpr const char* hypers[] = {"lr", "lr_decay", "eps"};
  static constexpr bool has_root = true;
  ONEPASS_DEVICE static Prepared prepare(const double* h, double t) {
    const double rate = h[0] / (1 + (t - 1) * h[1]);
    return {rate, {rate, h[2]}};
  }

  C lr, eps;
  ONEPASS_DEVICE explicit Adagrad(const double* s) : lr(static_cast<C>(s[0])), eps(static_cast<C>(s[1])) {}
  ONEPASS_ELEMENT void operator()(C& p, C g, C& sum) const {
    sum = sum + g * g;
    p = p - lr * g / (square_root(sum) + eps);
  }
};

// RMSprop (Hinton, 2012; centered: Graves, 2013, eq. 38-45). `trusted` is the share of v below which the centered
// variance is not trusted.
// States: v, then the buffer of the momentum, then the mean gradient of the centered form, as far as they exist.
template <class C, bool centered, bool with_momentum>
struct RMSpropBase {
  static constexpr const char* name = centered        ? with_momentum ? "rmsprop_centered_momentum" : "rmsprop_centered"
                                      : with_momentum ? "rmsprop_momentum"
                                                      : "rmsprop";
  static constexpr int states = 1 + centered + with_momentum;
  static constexpr State buffer{"momentum_buffer", StateKind::with_sign}, mean{"grad_avg", StateKind::with_sign};
  static constexpr State state[max_states] = {{"square_avg", StateKind::nonnegative},
                                              with_momentum ? buffer
                                              : centered    ? mean
                                                            : State(),
                                              with_momentum && centered ? mean : State()};
  static constexpr const char* hypers[] = {"lr", "alpha", "eps", "momentum", "trusted"};
  static constexpr bool has_root = true;
  ONEPASS_DEVICE static Prepared prepare(const double* h, double) {
    return {h[0], {h[0], h[1], 1 - h[1], h[2], h[3], h[4]}};
  }

  C lr, alpha, rest, eps, momentum, trusted;
  ONEPASS_DEVICE explicit RMSpropBase(const double* s)
      : lr(static_cast<C>(s[0])),
        alpha(static_cast<C>(s[1])),
        rest(static_cast<C>(s[2])),
        eps(static_cast<C>(s[3])),
        momentum(static_cast<C>(s[4])),
        trusted(static_cast<C>(s[5])) {}

  ONEPASS_ELEMENT C scaled(C g, C& v) const {
    v = alpha * v + rest * g * g;
    return g / (square_root(v) + eps);
  }
  ONEPASS_ELEMENT C scaled(C g, C& v, C& mean) const {
    v = alpha * v + rest * g * g;
    mean = alpha * mean + rest * g;
    const C variance = at_least(v - mean * mean, trusted * v);  // rounding may leave it below zero
    return g / (square_root(variance) + eps);
  }
  template <class... Mean>
  ONEPASS_ELEMENT void operator()(C& p, C g, C& v, Mean&... mean) const
    requires(!with_momentum)
  {
    p = p - lr * scaled(g, v, mean...);
  }
  template <class... Mean>
  ONEPASS_ELEMENT void operator()(C& p, C g, C& v, C& b, Mean&... mean) const
    requires(with_momentum)
  {
    b = momentum * b + scaled(g, v, mean...);
    p = p - lr * b;
  }
};
template <class C>
using RMSprop = RMSpropBase<C, false, false>;
template <class C>
using RMSpropMomentum = RMSpropBase<C, false, true>;
template <class C>
using RMSpropCentered = RMSpropBase<C, true, false>;
template <class C>
using RMSpropCenteredMomentum = RMSpropBase<C, true, true>;

// Adam (Kingma & Ba, 2015, algorithm 1; amsgrad: Reddi, Kale & Kumar, 2018), bias corrections arranged as in torch.
// States: m, v and, for amsgrad, the largest v so far.
template <class C, bool amsgrad>
struct AdamBase {
  static constexpr const char* name = amsgrad ? "amsgrad" : "adam";
  static constexpr int states = 2 + amsgrad;
  static constexpr State state[max_states] = {{"exp_avg", StateKind::with_sign},
                                              {"exp_avg_sq", StateKind::nonnegative},
                                              amsgrad ? State("max_exp_avg_sq", StateKind::maximum) : State()};
  static constexpr const char* hypers[] = {"lr", "beta1", "beta2", "eps"};
  static constexpr bool has_root = true;
  ONEPASS_DEVICE static Prepared prepare(const double* h, double t) {
    const double bias1 = 1 - std::pow(h[1], t);
    const double bias2 = 1 - std::pow(h[2], t);
    return {h[0], {h[0] / bias1, h[1], 1 - h[1], h[2], 1 - h[2], 1 / std::sqrt(bias2), h[3]}};
  }

  C step_size, beta1, rest1, beta2, rest2, inverse_bias, eps;
  ONEPASS_DEVICE explicit AdamBase(const double* s)
      : step_size(static_cast<C>(s[0])),
        beta1(static_cast<C>(s[1])),
        rest1(static_cast<C>(s[2])),
        beta2(static_cast<C>(s[3])),
        rest2(static_cast<C>(s[4])),
        inverse_bias(static_cast<C>(s[5])),
        eps(static_cast<C>(s[6])) {}

  ONEPASS_ELEMENT void update_moments(C g, C& m, C& v) const {
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
  }
  ONEPASS_ELEMENT void move(C& p, C m, C v) const { p = p - step_size * m / (square_root(v) * inverse_bias + eps); }

  ONEPASS_ELEMENT void operator()(C& p, C g, C& m, C& v) const {
    update_moments(g, m, v);
    move(p, m, v);
  }
  ONEPASS_ELEMENT void operator()(C& p, C g, C& m, C& v, C& largest) const {
    update_moments(g, m, v);
    largest = maximum(largest, v);
    move(p, m, largest);
  }
};
template <class C>
using Adam = AdamBase<C, false>;
template <class C>
using AmsGrad = AdamBase<C, true>;

// Whether a rule says how many states it has as often as it names one.
template <class Rule>
constexpr bool names_its_states() {
  int named = 0;
  for (const State& state : Rule::state) named += state.name != nullptr;
  return named == Rule::states && (named == max_states || Rule::state[named].name == nullptr);
}

template <template <class> class... Rule>
struct RuleList {
  static_assert((names_its_states<Rule<double>>() && ...));
  static constexpr int count = sizeof...(Rule);
};
// The list of rules; a rule's index in it is its number.
using Rules =
    RuleList<Sgd, Momentum, Adagrad, RMSprop, RMSpropMomentum, RMSpropCentered, RMSpropCenteredMomentum, Adam, AmsGrad>;

struct StateKinds {
  StateKind of[Rules::count][max_states];
};
template <template <class> class... Rule>
ONEPASS_DEVICE constexpr StateKinds state_kinds(RuleList<Rule...>) {
  StateKinds kinds{};
  for (int k = 0; k < max_states; ++k) {
    int rule = 0;
    ((kinds.of[rule++][k] = Rule<double>::state[k].kind), ...);
  }
  return kinds;
}

// What kind of number state `k` of a rule is.
ONEPASS_DEVICE inline StateKind state_kind(int rule, int k) {
  constexpr StateKinds kinds = state_kinds(Rules{});
  return kinds.of[rule][k];
}

}  // namespace
}  // namespace onepass
