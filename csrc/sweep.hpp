// The loop over elements, once for every rule and combination of storage types: read, scale, decay, rule, write.
#pragma once

#include <utility>

#include "access.hpp"
#include "element.hpp"
#include "prefetch.hpp"
#include "rules.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// The hardware's prefetchers stop at the end of a page: the sweep asks for what comes next itself. States go no further
// than the second level: with all on large pages and in the first, Adagrad takes a sixth longer.
constexpr int64_t stretch = 64;  // elements
constexpr int64_t ahead = 1024;  // bytes, the best of 1, 2 and 4 KiB
template <int cache, class T>
inline void prefetch_ahead(const T* data, int64_t at, int64_t n) {
  constexpr int64_t size = sizeof(T), line = 64;
  if ((n - at) * size <= ahead) return;  // what follows belongs to others
  const char* const first = reinterpret_cast<const char*>(data + at) + ahead;
  for (int64_t byte = 0; byte < stretch * size; byte += line) prefetch<cache>(first + byte);
}

template <template <class> class Rule, class T, int... K>
inline void sweep(void* const* data, int64_t n, const Scalars& scalars, std::integer_sequence<int, K...>) {
  using C = typename T::C;
  const Update<Rule, C> step(scalars);
  const typename T::P params(data[param], data[master]);
  const Plain<typename T::G> grads(data[grad]);
  using States = Plain<typename T::S>;
  [[maybe_unused]] const States states[] = {States(data[first_state + K])..., States(nullptr)};
  const auto update = [&](int64_t i) __attribute__((always_inline)) {
    C p = params.load(i);
    [[maybe_unused]] C state[] = {static_cast<C>(states[K].load(i))..., C{}};
    step(p, static_cast<C>(grads.load(i)), state[K]...);
    (states[K].store(i, state[K]), ...);
    params.store(i, p);
  };
  int64_t at = 0;
  for (; at + stretch <= n; at += stretch) {
    prefetch_ahead<first_level>(params.at, at, n);
    prefetch_ahead<first_level>(grads.at, at, n);
    (prefetch_ahead<second_level>(states[K].at, at, n), ...);
#pragma GCC ivdep  // operands never overlap
    for (int64_t i = at; i < at + stretch; ++i) update(i);
  }
#pragma GCC ivdep
  for (int64_t i = at; i < n; ++i) update(i);
}

using Sweep = void (*)(void* const*, int64_t, const Scalars&);

template <template <class> class Rule, class T>
void sweep(void* const* data, int64_t n, const Scalars& scalars) {
  sweep<Rule, T>(data, n, scalars, std::make_integer_sequence<int, Rule<typename T::C>::states>{});
}

template <class T, class List>
struct Sweeps;
template <class T, template <class> class... Rule>
struct Sweeps<T, RuleList<Rule...>> {
  static constexpr Sweep table[] = {sweep<Rule, T>...};
};

template <class List>
struct AllSweeps;
template <class... T>
struct AllSweeps<TypesList<T...>> {
  static constexpr const Sweep* table[] = {Sweeps<T, Rules>::table...};
};
// By place in Common, then by rule. The first two are those of the compute types.
constexpr const Sweep* const* sweeps = AllSweeps<Common>::table;

}  // namespace
}  // namespace onepass
