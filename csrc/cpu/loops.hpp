// The loop over elements, once for every rule, combination of storage types and variant: read, update, write.
#pragma once

#include <type_traits>
#include <utility>

#include "cpu/avx512.hpp"
#include "cpu/prefetch.hpp"
#include "rules/access.hpp"
#include "rules/element.hpp"
#include "rules/rules.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// States go no further than the second level: with all on large pages and in the first, Adagrad takes a sixth longer.
constexpr int64_t block_elements = 64;  // elements
template <int cache, class T>
inline void prefetch_ahead(const T* data, int64_t at, int64_t n) {
  constexpr int64_t size = sizeof(T);
  if ((n - at) * size <= ahead) return;  // what follows belongs to others
  const char* const first = reinterpret_cast<const char*>(data + at) + ahead;
  for (int64_t byte = 0; byte < block_elements * size; byte += line) prefetch<cache>(first + byte);
}

// How much an update does: scale, decay and rule; all that needs no further operand; this and the ema.
enum class Variant { plain, full, with_ema };

// Up to here the numbers of a tensor may be in a cache. Beyond, memory decides, and fewer instructions wait less for
// it.
constexpr int64_t largest_cached = 1 << 17;  // elements

// An element of an operand, or as many as there are lanes.
template <class V, class Operand>
ONEPASS_ELEMENT V read(const Operand& operand, int64_t i) {
  if constexpr (is_lanes<V>) {
    return V::load(operand.at + i);
  } else {
    return static_cast<V>(operand.load(i));
  }
}
template <class V, class Operand>
ONEPASS_ELEMENT void write(const Operand& operand, int64_t i, V x) {
  if constexpr (is_lanes<V>) {
    x.store(operand.at + i);
  } else {
    operand.store(i, x);
  }
}

template <template <class> class Rule, class T, Variant variant, int... K>
inline void sweep(void* const* data, int64_t n, const Scalars& scalars, std::integer_sequence<int, K...>) {
  using C = typename T::C;
  const std::conditional_t<variant == Variant::plain, Update<Rule, C>, FullUpdate<Rule, C>> step(scalars);
  constexpr bool in_lanes = has_lanes && variant == Variant::plain && std::is_same_v<T, F32> && Rule<C>::has_root;
  constexpr bool has_ema = variant == Variant::with_ema;
  [[maybe_unused]] const Ema<C> update_ema(scalars);
  [[maybe_unused]] const Plain<C> emas(data[ema]);
  const typename T::P params(data[param], data[master]);
  const Plain<typename T::G> grads(data[grad]);
  using States = Plain<typename T::S>;
  [[maybe_unused]] const States states[] = {States(data[first_state + K])..., States(nullptr)};
  const auto update = [&](const auto& step, int64_t i) __attribute__((always_inline)) {
    using V = typename std::remove_cvref_t<decltype(step)>::Number;
    V p = read<V>(params, i);
    [[maybe_unused]] V state[] = {read<V>(states[K], i)..., V(0.0)};
    step(p, read<V>(grads, i), state[K]...);
    (write(states[K], i, state[K]), ...);
    if constexpr (has_ema) emas.store(i, update_ema(p, emas.load(i)));
    write(params, i, p);
  };
  const auto prefetch_block = [&](int64_t at) __attribute__((always_inline)) {
    prefetch_ahead<first_level>(params.at, at, n);
    prefetch_ahead<first_level>(grads.at, at, n);
    (prefetch_ahead<second_level>(states[K].at, at, n), ...);
    if constexpr (has_ema) prefetch_ahead<second_level>(emas.at, at, n);
  };
  int64_t at = 0;
  if constexpr (in_lanes) {
    const Update<Rule, Lanes<Root::refined_rsqrt>> most(scalars);
    const Update<Rule, Lanes<Root::hardware>> some(scalars);
    constexpr int64_t lanes = Lanes<Root::hardware>::count;
    for (; n <= largest_cached && at + block_elements <= n; at += block_elements) {
      prefetch_block(at);
      for (int64_t i = at; i < at + block_elements - lanes; i += lanes) update(most, i);
      update(some, at + block_elements - lanes);  // both units have the same to do then
    }
    for (; n <= largest_cached && at + lanes <= n; at += lanes) update(most, at);
  }
  for (; at + block_elements <= n; at += block_elements) {
    prefetch_block(at);
#pragma GCC ivdep  // operands never overlap
    for (int64_t i = at; i < at + block_elements; ++i) update(step, i);
  }
#pragma GCC ivdep
  for (; at < n; ++at) update(step, at);
}

using Sweep = void (*)(void* const*, int64_t, const Scalars&);

template <template <class> class Rule, class T, Variant variant>
void sweep(void* const* data, int64_t n, const Scalars& scalars) {
  sweep<Rule, T, variant>(data, n, scalars, std::make_integer_sequence<int, Rule<typename T::C>::states>{});
}

template <class T, Variant variant, class List>
struct Sweeps;
template <class T, Variant variant, template <class> class... Rule>
struct Sweeps<T, variant, RuleList<Rule...>> {
  static constexpr Sweep table[] = {sweep<Rule, T, variant>...};
};

template <Variant variant, class List>
struct AllSweeps;
template <Variant variant, class... T>
struct AllSweeps<variant, TypesList<T...>> {
  static constexpr const Sweep* table[] = {Sweeps<T, variant, Rules>::table...};
};
// The first of Common, which tiles need; what else an update does is there for these alone.
using ComputeTypes = TypesList<F32, F64>;
#ifdef ONEPASS_FEWEST_SWEEPS
using PlainTypes = ComputeTypes;
#else
using PlainTypes = Common;
#endif
// By variant, place in Common and rule.
constexpr const Sweep* const* sweeps[] = {AllSweeps<Variant::plain, PlainTypes>::table,
                                          AllSweeps<Variant::full, ComputeTypes>::table,
                                          AllSweeps<Variant::with_ema, ComputeTypes>::table};

// What an update of a segment needs, its anchor aside.
inline Variant variant_of(const Segment& segment, const Scalars& scalars) {
  if (segment.has(ema)) return Variant::with_ema;
  return needs_preparation(scalars) || scalars.threshold != 0 ? Variant::full : Variant::plain;
}

inline Sweep sweep_of(const Segment& segment, Variant variant, int combination) {
  return sweeps[static_cast<int>(variant)][combination][segment.rule];
}

// The sweep that takes a segment as it lies in memory, or null.
inline Sweep direct_sweep(const Segment& segment, const Scalars& scalars) {
  const int combination = is_even(segment, scalars) ? combination_of(segment) : -1;
  if (combination < 0) return nullptr;
  const Variant variant = variant_of(segment, scalars);
  const bool ema_fits = !segment.has(ema) || segment.dtype[ema] == segment.dtype[param];
  const bool plain = variant == Variant::plain;
  const int count = plain ? CombinationsOf<PlainTypes>::count : CombinationsOf<ComputeTypes>::count;
  return combination < count && (plain || ema_fits) ? sweep_of(segment, variant, combination) : nullptr;
}

}  // namespace
}  // namespace onepass
