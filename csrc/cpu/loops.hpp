// The loop over elements, once for every rule, combination of storage types and extent: read, update, write.
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
constexpr int64_t stretch = 64;  // elements
template <int cache, class T>
inline void prefetch_ahead(const T* data, int64_t at, int64_t n) {
  constexpr int64_t size = sizeof(T);
  if ((n - at) * size <= ahead) return;  // what follows belongs to others
  const char* const first = reinterpret_cast<const char*>(data + at) + ahead;
  for (int64_t byte = 0; byte < stretch * size; byte += line) prefetch<cache>(first + byte);
}

// How much an update does: scale, decay and rule; all that needs no further operand; this and the average.
enum class Extent { plain, full, averaged };

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

template <template <class> class Rule, class T, Extent extent, int... K>
inline void sweep(void* const* data, int64_t n, const Scalars& scalars, std::integer_sequence<int, K...>) {
  using C = typename T::C;
  const std::conditional_t<extent == Extent::plain, Update<Rule, C>, FullUpdate<Rule, C>> step(scalars);
  constexpr bool in_lanes = has_lanes && extent == Extent::plain && std::is_same_v<T, Single> && Rule<C>::has_root;
  constexpr bool averages = extent == Extent::averaged;
  [[maybe_unused]] const Average<C> average(scalars);
  [[maybe_unused]] const Plain<C> means(data[ema]);
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
    if constexpr (averages) means.store(i, average(p, means.load(i)));
    write(params, i, p);
  };
  const auto prefetch_stretch = [&](int64_t at) __attribute__((always_inline)) {
    prefetch_ahead<first_level>(params.at, at, n);
    prefetch_ahead<first_level>(grads.at, at, n);
    (prefetch_ahead<second_level>(states[K].at, at, n), ...);
    if constexpr (averages) prefetch_ahead<second_level>(means.at, at, n);
  };
  int64_t at = 0;
  if constexpr (in_lanes) {
    const Update<Rule, Lanes<Root::multiplied>> most(scalars);
    const Update<Rule, Lanes<Root::divided>> some(scalars);
    constexpr int64_t lanes = Lanes<Root::divided>::count;
    for (; n <= largest_cached && at + stretch <= n; at += stretch) {
      prefetch_stretch(at);
      for (int64_t i = at; i < at + stretch - lanes; i += lanes) update(most, i);
      update(some, at + stretch - lanes);  // both units have the same to do then
    }
    for (; n <= largest_cached && at + lanes <= n; at += lanes) update(most, at);
  }
  for (; at + stretch <= n; at += stretch) {
    prefetch_stretch(at);
#pragma GCC ivdep  // operands never overlap
    for (int64_t i = at; i < at + stretch; ++i) update(step, i);
  }
#pragma GCC ivdep
  for (; at < n; ++at) update(step, at);
}

using Sweep = void (*)(void* const*, int64_t, const Scalars&);

template <template <class> class Rule, class T, Extent extent>
void sweep(void* const* data, int64_t n, const Scalars& scalars) {
  sweep<Rule, T, extent>(data, n, scalars, std::make_integer_sequence<int, Rule<typename T::C>::states>{});
}

template <class T, Extent extent, class List>
struct Sweeps;
template <class T, Extent extent, template <class> class... Rule>
struct Sweeps<T, extent, RuleList<Rule...>> {
  static constexpr Sweep table[] = {sweep<Rule, T, extent>...};
};

template <Extent extent, class List>
struct AllSweeps;
template <Extent extent, class... T>
struct AllSweeps<extent, TypesList<T...>> {
  static constexpr const Sweep* table[] = {Sweeps<T, extent, Rules>::table...};
};
// By extent, place in Common (beyond the plain ones there are only those of the compute types, its first), and rule.
constexpr int compute_types = 2;
constexpr const Sweep* const* sweeps[] = {AllSweeps<Extent::plain, Common>::table,
                                          AllSweeps<Extent::full, TypesList<Single, Twofold>>::table,
                                          AllSweeps<Extent::averaged, TypesList<Single, Twofold>>::table};

// What an update of a segment needs, its anchor aside.
inline Extent extent_of(const Segment& segment, const Scalars& scalars) {
  if (segment.has(ema)) return Extent::averaged;
  return needs_preparation(scalars) || scalars.threshold != 0 ? Extent::full : Extent::plain;
}

inline Sweep sweep_of(const Segment& segment, Extent extent, int combination) {
  return sweeps[static_cast<int>(extent)][combination][segment.rule];
}

// The sweep that takes a segment as it lies in memory, or null.
inline Sweep direct_sweep(const Segment& segment, const Scalars& scalars) {
  const int combination = is_even(segment, scalars) ? combination_of(segment) : -1;
  if (combination < 0) return nullptr;
  const Extent extent = extent_of(segment, scalars);
  const bool averages = !segment.has(ema) || segment.dtype[ema] == segment.dtype[param];
  const bool exists = extent == Extent::plain || (combination < compute_types && averages);
  return exists ? sweep_of(segment, extent, combination) : nullptr;
}

}  // namespace
}  // namespace onepass
