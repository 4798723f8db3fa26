// One stretch of a segment: read, scale, decay, rule, shrink, write.
//
// `sweep` is the loop over elements, once for every rule and storage type: dense tensors of one dtype go straight
// through it. Everything else (strides, mixed dtypes, L1) goes through `staged`, which brings a tile of elements into
// contiguous buffers of the compute type, runs the same sweep on them and writes them back.
#pragma once

#include <utility>

#include "numeric.hpp"
#include "rules.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr int64_t tile = 512;  // elements; five float buffers of it fill a third of a 32 KiB L1 cache

template <template <class> class Rule, class C, class T, int... K>
inline void sweep(void* const* data, int64_t n, const Scalars& scalars, std::integer_sequence<int, K...>) {
  const Rule<C> rule(scalars.rule);
  const C scale = static_cast<C>(scalars.scale);
  const C coupled = static_cast<C>(scalars.coupled);
  const C shrink = static_cast<C>(scalars.shrink);
  const bool decay = scalars.coupled != 0;  // 0 * infinity must not reach the gradient

  T* const params = static_cast<T*>(data[param]);
  const T* const grads = static_cast<const T*>(data[grad]);
  [[maybe_unused]] T* const states[] = {static_cast<T*>(data[first_state + K])..., nullptr};
#pragma GCC ivdep  // operands never overlap
  for (int64_t i = 0; i < n; ++i) {
    C p = widen(params[i]);
    C g = scale * widen(grads[i]);
    [[maybe_unused]] C state[] = {widen(states[K][i])..., C{}};
    g = decay ? g + coupled * p : g;
    p = p * shrink;
    rule(p, g, state[K]...);
    (narrow(state[K], states[K][i]), ...);
    narrow(p, params[i]);
  }
}

using Sweep = void (*)(void* const*, int64_t, const Scalars&);

template <template <class> class Rule, class C, class T>
void sweep(void* const* data, int64_t n, const Scalars& scalars) {
  sweep<Rule, C, T>(data, n, scalars, std::make_integer_sequence<int, Rule<C>::states>{});
}

template <class C, class T, class List>
struct Sweeps;
template <class C, class T, template <class> class... Rule>
struct Sweeps<C, T, RuleList<Rule...>> {
  static constexpr Sweep table[] = {sweep<Rule, C, T>...};
};

// Indexed by Dtype, then by rule.
constexpr const Sweep* dense_sweeps[] = {Sweeps<float, float, Rules>::table, Sweeps<double, double, Rules>::table,
                                         Sweeps<float, bf16, Rules>::table, Sweeps<float, f16, Rules>::table};
constexpr int64_t dtype_size[] = {4, 8, 2, 2};

// Calls visit(first element's offset, its place in the tile, length, stride) for each run along the innermost
// dimension that elements [begin, begin + n) of operand `k` consist of.
template <class Visit>
inline void each_run(const Segment& segment, int k, int64_t begin, int64_t n, const Visit& visit) {
  if (segment.strided == nullptr) {
    visit(begin, int64_t{0}, n, int64_t{1});
    return;
  }
  const Strided& view = *segment.strided;
  const int inner = view.dims - 1;
  for (int64_t done = 0; done < n;) {
    int64_t rest = begin + done;
    const int64_t column = rest % view.shape[inner];
    int64_t offset = column * view.stride[k][inner];
    rest /= view.shape[inner];
    for (int d = inner - 1; d >= 0; --d) {
      offset += rest % view.shape[d] * view.stride[k][d];
      rest /= view.shape[d];
    }
    const int64_t left = view.shape[inner] - column;
    const int64_t length = left < n - done ? left : n - done;
    visit(offset, done, length, view.stride[k][inner]);
    done += length;
  }
}

template <class T, class C>
void load_as(const Segment& segment, int k, int64_t begin, int64_t n, C* __restrict out) {
  const T* const base = static_cast<const T*>(segment.data[k]);
  each_run(segment, k, begin, n, [=](int64_t offset, int64_t at, int64_t length, int64_t stride) {
    const T* __restrict const from = base + offset;
    if (stride == 1) {
      for (int64_t i = 0; i < length; ++i) out[at + i] = static_cast<C>(widen(from[i]));
    } else {
      for (int64_t i = 0; i < length; ++i) out[at + i] = static_cast<C>(widen(from[i * stride]));
    }
  });
}

template <class T, class C>
void store_as(const Segment& segment, int k, int64_t begin, int64_t n, const C* __restrict in) {
  T* const base = static_cast<T*>(segment.data[k]);
  each_run(segment, k, begin, n, [=](int64_t offset, int64_t at, int64_t length, int64_t stride) {
    T* __restrict const to = base + offset;
    if (stride == 1) {
      for (int64_t i = 0; i < length; ++i) narrow(in[at + i], to[i]);
    } else {
      for (int64_t i = 0; i < length; ++i) narrow(in[at + i], to[i * stride]);
    }
  });
}

template <class C>
constexpr void (*loads[])(const Segment&, int, int64_t, int64_t, C*) = {load_as<float, C>, load_as<double, C>,
                                                                        load_as<bf16, C>, load_as<f16, C>};
template <class C>
constexpr void (*stores[])(const Segment&, int, int64_t, int64_t, const C*) = {store_as<float, C>, store_as<double, C>,
                                                                               store_as<bf16, C>, store_as<f16, C>};

// The gradient of lambda * |p|: g + subgradient * sign(p), after the scale, which is then done.
template <class C>
inline void add_subgradient(const C* __restrict p, C* __restrict g, int64_t n, const Scalars& scalars) {
  const C scale = static_cast<C>(scalars.scale), strength = static_cast<C>(scalars.subgradient);
  for (int64_t i = 0; i < n; ++i) {
    const C slope = p[i] > 0 ? strength : p[i] < 0 ? -strength : C{0};
    g[i] = scale * g[i] + slope;
  }
}

// Proximal step of lambda * |p| (soft threshold; Parikh & Boyd, 2014, section 6.5.2): leaves exact zeros.
template <class C>
inline void soft_threshold(C* __restrict p, int64_t n, const Scalars& scalars) {
  const C threshold = static_cast<C>(scalars.threshold);
  for (int64_t i = 0; i < n; ++i) {
    const C above = p[i] > threshold ? p[i] - threshold : C{0};
    const C below = p[i] < -threshold ? p[i] + threshold : above;
    p[i] = p[i] == p[i] ? below : p[i];
  }
}

template <class C>
void staged(const Segment& segment, const Scalars& given, int64_t begin, int64_t end) {
  constexpr Dtype compute = sizeof(C) == sizeof(float) ? Dtype::f32 : Dtype::f64;
  const bool subgradient = given.subgradient != 0;
  Scalars scalars = given;
  if (subgradient) scalars.scale = 1;

  alignas(64) C buffer[max_operands][tile];
  bool buffered[max_operands] = {};
  for (int k = 0; k < segment.operands; ++k) {
    const bool altered = k == grad && subgradient;
    buffered[k] = altered || segment.strided != nullptr || segment.dtype[k] != compute;
  }
  void* data[max_operands] = {};
  for (int64_t at = begin; at < end; at += tile) {
    const int64_t n = end - at < tile ? end - at : tile;
    for (int k = 0; k < segment.operands; ++k) {
      if (buffered[k]) loads<C>[static_cast<int>(segment.dtype[k])](segment, k, at, n, buffer[k]);
      data[k] = buffered[k] ? buffer[k] : static_cast<C*>(segment.data[k]) + at;
    }
    C* const p = static_cast<C*>(data[param]);
    if (subgradient) add_subgradient(p, static_cast<C*>(data[grad]), n, given);
    dense_sweeps[static_cast<int>(compute)][segment.rule](data, n, scalars);
    if (scalars.threshold != 0) soft_threshold(p, n, scalars);
    for (int k = 0; k < segment.operands; ++k) {
      if (buffered[k] && k != grad) stores<C>[static_cast<int>(segment.dtype[k])](segment, k, at, n, buffer[k]);
    }
  }
}

inline void update(const Segment& segment, const Scalars& scalars, int64_t begin, int64_t end) {
  bool direct = segment.strided == nullptr && scalars.subgradient == 0 && scalars.threshold == 0;
  for (int k = 1; k < segment.operands; ++k) direct = direct && segment.dtype[k] == segment.dtype[param];
  if (direct) {
    const int dtype = static_cast<int>(segment.dtype[param]);
    void* data[max_operands] = {};
    for (int k = 0; k < segment.operands; ++k) {
      data[k] = static_cast<char*>(segment.data[k]) + begin * dtype_size[dtype];
    }
    dense_sweeps[dtype][segment.rule](data, end - begin, scalars);
  } else if (segment.dtype[param] == Dtype::f64) {
    staged<double>(segment, scalars, begin, end);
  } else {
    staged<float>(segment, scalars, begin, end);
  }
}

}  // namespace
}  // namespace onepass
