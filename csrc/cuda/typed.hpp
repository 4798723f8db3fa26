// The update of chunks whose types and layout are common: each thread takes vectors of elements, 16 bytes of the
// narrowest operand. Ordinary code over the number of a thread, so that a host can run it as well.
#pragma once

#include <utility>

#include "cuda/vector.hpp"
#include "cuda/work.hpp"
#include "rules/access.hpp"
#include "rules/element.hpp"
#include "rules/rules.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

template <class T>
struct Typed {
  using C = typename T::C;
  using P = typename T::P;
  using Params = Vectors<P>;
  using Grads = Vectors<Plain<typename T::G>>;
  using States = Vectors<Plain<typename T::S>>;
  static constexpr int width = vector_width<T>;

  template <template <class> class Rule, int... K>
  ONEPASS_DEVICE static void run(const Segment& segment, const Scalars& scalars, int64_t begin, int64_t end, int thread,
                                 int threads, std::integer_sequence<int, K...>) {
    const Update<Rule, C> step(scalars);
    const Params params(segment.data[param], segment.data[master]);
    const Grads grads(segment.data[grad]);
    [[maybe_unused]] const States states[] = {States(segment.data[first_state + K])..., States(nullptr)};
    const auto one = [&](int64_t i) {
      C p = params.load(i);
      [[maybe_unused]] C state[] = {static_cast<C>(states[K].load(i))..., C{}};
      step(p, static_cast<C>(grads.load(i)), state[K]...);
      (states[K].store(i, state[K]), ...);
      params.store(i, p);
    };
    const int64_t head = segment.head < 0 ? end - begin : segment.head;  // chunks begin at multiples of the width
    const int64_t first = begin + head < end ? begin + head : end;
    const int64_t vectors = (end - first) / width;
    ONEPASS_ROLLED
    for (int64_t i = begin + thread; i < first; i += threads) one(i);
    ONEPASS_ROLLED
    for (int64_t v = thread; v < vectors; v += threads) {
      const int64_t at = first + v * width;
      auto ps = params.template load_vector<width>(at);
      const auto gs = grads.template load_vector<width>(at);
      [[maybe_unused]]
      typename States::template Vector<width> ss[] = {states[K].template load_vector<width>(at)..., {}};
      ONEPASS_UNROLL
      for (int j = 0; j < width; ++j) {
        C p = ps.get(j);
        [[maybe_unused]] C state[] = {static_cast<C>(ss[K].get(j))..., C{}};
        step(p, static_cast<C>(gs.get(j)), state[K]...);
        (ss[K].set(j, state[K]), ...);
        ps.set(j, p);
      }
      (states[K].store_vector(at, ss[K]), ...);
      params.store_vector(at, ps);
    }
    ONEPASS_ROLLED
    for (int64_t i = first + vectors * width + thread; i < end; i += threads) one(i);
  }

  template <template <class> class... Rule>
  ONEPASS_DEVICE static void by_rule(RuleList<Rule...>, const Segment& segment, const Scalars& scalars, int64_t begin,
                                     int64_t end, int thread, int threads) {
    int i = 0;
    ((i++ == segment.rule
          ? run<Rule>(segment, scalars, begin, end, thread, threads, std::make_integer_sequence<int, Rule<C>::states>{})
          : void()),
     ...);
  }

  // What a thread does of the chunks that its block takes: every `blocks`th one.
  ONEPASS_DEVICE static void update(const Work& work, int64_t block, int64_t blocks, int thread, int threads) {
    if (work.outcome != nullptr && work.outcome->skip) return;
    for (int64_t c = block; c < work.count; c += blocks) {
      const auto [segment, begin, end] = work.piece(c);
      by_rule(Rules{}, segment, work.scalars_of(segment), begin, end, thread, threads);
    }
  }
};

}  // namespace
}  // namespace onepass
