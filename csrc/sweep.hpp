// The loop over elements, once for every rule and combination of storage types: read, scale, decay, rule, write.
#pragma once

#include <utility>

#include "element.hpp"
#include "numeric.hpp"
#include "rules.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// How a sweep reaches the elements of an operand.
template <class T>
struct Plain {
  T* at;
  ONEPASS_DEVICE explicit Plain(void* data, void* = nullptr) : at(static_cast<T*>(data)) {}
  auto load(int64_t i) const { return widen(at[i]); }
  template <class C>
  void store(int64_t i, C x) const {
    narrow(x, at[i]);
  }
};

// A bf16 parameter and the 16 bits that it lacks of its float32.
struct Split {
  bf16* at;
  int16_t* low;
  Split(void* data, void* rest) : at(static_cast<bf16*>(data)), low(static_cast<int16_t*>(rest)) {}
  float load(int64_t i) const { return join(at[i], low[i]); }
  void store(int64_t i, float x) const { split(x, at[i], low[i]); }
};

// The hardware's prefetchers stop at the end of a page: the sweep asks for what comes next itself.
constexpr int64_t stretch = 64;  // elements
constexpr int64_t ahead = 1024;  // bytes, the best of 1, 2 and 4 KiB
template <class T>
inline void prefetch_ahead(const T* data, int64_t at, int64_t n) {
  constexpr int64_t size = sizeof(T), line = 64;
  if ((n - at) * size <= ahead) return;  // what follows belongs to others
  const char* const first = reinterpret_cast<const char*>(data + at) + ahead;
  for (int64_t byte = 0; byte < stretch * size; byte += line) __builtin_prefetch(first + byte);
}

template <template <class> class Rule, class C, class P, class G, class S, int... K>
inline void sweep(void* const* data, int64_t n, const Scalars& scalars, std::integer_sequence<int, K...>) {
  const Rule<C> rule(scalars.rule);
  const C scale = static_cast<C>(scalars.scale);
  const Decay<C> decay(scalars);

  const P params(data[param], data[master]);
  const Plain<G> grads(data[grad]);
  [[maybe_unused]] const Plain<S> states[] = {Plain<S>(data[first_state + K])..., Plain<S>(nullptr)};
  const auto update = [&](int64_t i) __attribute__((always_inline)) {
    C p = params.load(i);
    C g = scale * grads.load(i);
    [[maybe_unused]] C state[] = {static_cast<C>(states[K].load(i))..., C{}};
    decay(p, g);
    rule(p, g, state[K]...);
    (states[K].store(i, state[K]), ...);
    params.store(i, p);
  };
  int64_t at = 0;
  for (; at + stretch <= n; at += stretch) {
    prefetch_ahead(params.at, at, n);
    prefetch_ahead(grads.at, at, n);
    (prefetch_ahead(states[K].at, at, n), ...);
#pragma GCC ivdep  // operands never overlap
    for (int64_t i = at; i < at + stretch; ++i) update(i);
  }
#pragma GCC ivdep
  for (int64_t i = at; i < n; ++i) update(i);
}

using Sweep = void (*)(void* const*, int64_t, const Scalars&);

template <template <class> class Rule, class C, class P, class G, class S>
void sweep(void* const* data, int64_t n, const Scalars& scalars) {
  sweep<Rule, C, P, G, S>(data, n, scalars, std::make_integer_sequence<int, Rule<C>::states>{});
}

// A combination of storage types that has sweeps of its own: those, by rule.
struct Combination {
  Dtype param, grad, state;
  bool split;
  const Sweep* by_rule;
};

template <class C, class P, class G, class S, class List>
struct Sweeps;
template <class C, class P, class G, class S, template <class> class... Rule>
struct Sweeps<C, P, G, S, RuleList<Rule...>> {
  static constexpr Sweep table[] = {sweep<Rule, C, P, G, S>...};
};

template <class C, class P, class G, class S>
constexpr const Sweep* sweeps = Sweeps<C, P, G, S, Rules>::table;

constexpr Combination combinations[] = {
    {Dtype::f32, Dtype::f32, Dtype::f32, false, sweeps<float, Plain<float>, float, float>},
    {Dtype::f64, Dtype::f64, Dtype::f64, false, sweeps<double, Plain<double>, double, double>},
    {Dtype::bf16, Dtype::bf16, Dtype::bf16, false, sweeps<float, Plain<bf16>, bf16, bf16>},
    {Dtype::f16, Dtype::f16, Dtype::f16, false, sweeps<float, Plain<f16>, f16, f16>},
    {Dtype::f32, Dtype::f32, Dtype::bf16, false, sweeps<float, Plain<float>, float, bf16>},
    {Dtype::bf16, Dtype::bf16, Dtype::f32, false, sweeps<float, Plain<bf16>, bf16, float>},
    {Dtype::bf16, Dtype::bf16, Dtype::f32, true, sweeps<float, Split, bf16, float>},
    {Dtype::bf16, Dtype::bf16, Dtype::bf16, true, sweeps<float, Split, bf16, bf16>},
};

// The combination of a segment, or null.
inline const Combination* combination_of(const Segment& segment) {
  const bool split = segment.has(master) && segment.dtype[master] == Dtype::i16;
  if (segment.has(master) && !split) return nullptr;
  for (const Combination& c : combinations) {
    bool fits = c.param == segment.dtype[param] && c.grad == segment.dtype[grad] && c.split == split;
    for (int k = 0; k < segment.states; ++k) fits = fits && c.state == segment.dtype[first_state + k];
    if (fits) return &c;
  }
  return nullptr;
}

}  // namespace
}  // namespace onepass
