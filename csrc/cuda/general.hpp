// The update of chunks of any types and layout, with every option. A warp takes a tile of 256 elements, which is a
// block of 8-bit states, and each of its lanes 8 elements, which share a block of random numbers.
#pragma once

#include "cuda/lane.hpp"
#include "rules/element.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// The elements of one lane: `compute` reads them and does the arithmetic, `write` puts them back. Between the two, the
// lanes of a warp agree on the largest magnitudes of states in 8 bits.
template <class C>
class Lane : LaneMemory<C> {
 public:
  // Elements [at, at + n) of the segment; `place` is that of the first in its block.
  ONEPASS_DEVICE Lane(const Segment& segment, const Scalars& scalars, int64_t at, int n, int place)
      : LaneMemory<C>(segment, scalars, at, n, place) {}

  ONEPASS_DEVICE void compute() {
    ONEPASS_UNROLL
    for (int k = 0; k < master; ++k) {
      if (segment_.has(k)) this->read(k, value_[k]);
    }
    if (segment_.has(master)) read_master();
    Scalars rest = scalars_;
    if (needs_preparation(scalars_) || segment_.has(anchor)) {
      const Preparation<C> prepare(scalars_);
      each([&](int j) { value_[grad][j] = prepare(value_[param][j], value_[grad][j]); });
      rest.scale = 1;
    }
    if (segment_.has(anchor)) {
      const Pull<C> pull(scalars_);
      each([&](int j) { pull(value_[param][j], value_[grad][j], value_[anchor][j]); });
    }
    by_rule(Rules{}, rest);
    if (scalars_.threshold != 0) {
      const SoftThreshold<C> threshold(scalars_);
      each([&](int j) { value_[param][j] = threshold(value_[param][j]); });
    }
    if (segment_.has(ema)) {
      const Ema<C> update_ema(scalars_);
      each([&](int j) { value_[ema][j] = update_ema(value_[param][j], value_[ema][j]); });
    }
  }

  // Of state k, in bits that sort as the magnitudes do.
  ONEPASS_DEVICE uint32_t largest(int k) const {
    uint32_t found = 0;
    ONEPASS_UNROLL_SINGLE
    for (int j = 0; j < lane_elements; ++j) {
      const uint32_t bits = j < n_ ? magnitude_bits(value_[first_state + k][j]) : 0;
      found = found > bits ? found : bits;
    }
    return found;
  }

  // `largest`: of each state, over the whole block.
  ONEPASS_DEVICE void write(const uint32_t (&largest)[max_states]) {
    if (n_ <= 0) return;
    ONEPASS_UNROLL
    for (int k = 0; k < max_states; ++k) {
      if (!segment_.has(first_state + k)) continue;
      if (segment_.dtype[first_state + k] == Dtype::u8) {
        this->write_codes(k, value_[first_state + k], largest[k]);
      } else {
        this->write_as_is(first_state + k, value_[first_state + k]);
      }
    }
    if (segment_.has(ema)) this->write_as_is(ema, value_[ema]);
    write_param();
  }

 private:
  template <class Do>
  ONEPASS_DEVICE void each(const Do& act) {
    ONEPASS_UNROLL_SINGLE
    for (int j = 0; j < lane_elements; ++j) act(j);
  }

  template <template <class> class Rule, int... K>
  ONEPASS_DEVICE void run(const Scalars& scalars, std::integer_sequence<int, K...>) {
    const Update<Rule, C> step(scalars);
    each([&](int j) { step(value_[param][j], value_[grad][j], value_[first_state + K][j]...); });
  }
  template <template <class> class... Rule>
  ONEPASS_DEVICE void by_rule(RuleList<Rule...>, const Scalars& scalars) {
    int i = 0;
    ((i++ == segment_.rule ? run<Rule>(scalars, std::make_integer_sequence<int, Rule<C>::states>{}) : void()), ...);
  }

  ONEPASS_DEVICE void read_master() {
    if (n_ <= 0) return;
    if (segment_.dtype[master] == Dtype::i16) {
      int16_t low[lane_elements] = {};
      this->template read_as<int16_t>(master, low, [](int16_t x) { return x; });
      each([&](int j) {
        bf16 high;
        narrow(value_[param][j], high);
        value_[param][j] = join(high, low[j]);
      });
    } else {
      C whole[lane_elements] = {};
      this->template read_as<float>(master, whole, [](float x) { return static_cast<C>(x); });
      each([&](int j) {
        if (is_rounding(whole[j], value_[param][j])) value_[param][j] = whole[j];
      });
    }
  }

  ONEPASS_DEVICE void write_param() const {
    const C(&p)[lane_elements] = value_[param];
    const Dtype dtype = segment_.dtype[param];
    if (segment_.has(master) && segment_.dtype[master] == Dtype::i16) {
      Pack<bf16, lane_elements> high;
      Pack<int16_t, lane_elements> low;
      ONEPASS_UNROLL
      for (int j = 0; j < lane_elements; ++j) split(static_cast<float>(p[j]), high.at[j], low.at[j]);
      this->write_raw(param, high);
      this->write_raw(master, low);
      return;
    }
    if (segment_.has(master)) this->template write_as<float>(master, p);
    if (!segment_.has(master) && scalars_.stochastic && dtype == Dtype::bf16) {
      this->template write_stochastic<bf16>(p);
    } else if (!segment_.has(master) && scalars_.stochastic && dtype == Dtype::f16) {
      this->template write_stochastic<f16>(p);
    } else {
      this->write_as_is(param, p);
    }
  }

  using LaneMemory<C>::segment_;
  using LaneMemory<C>::scalars_;
  using LaneMemory<C>::n_;
  C value_[master][lane_elements];
};

// Calls tile(segment, scalars, begin, n) for the tiles that fall to a warp: chunks go to blocks in turn, the tiles of a
// chunk to the block's warps.
template <class Tile>
ONEPASS_DEVICE inline void each_tile(const Work& work, int64_t block, int64_t blocks, int warp, int warps,
                                     const Tile& tile) {
  if (work.outcome != nullptr && work.outcome->skip) return;
  for (int64_t c = block; c < work.count; c += blocks) {
    const auto [segment, begin, end] = work.piece(c);
    for (int64_t at = begin + warp * quantized_block; at < end; at += warps * quantized_block) {
      tile(segment, work.scalars_of(segment), at,
           static_cast<int>(end - at < quantized_block ? end - at : quantized_block));
    }
  }
}

// How many elements of a tile of `n` a lane has: 0 to 8.
ONEPASS_DEVICE inline int elements_of(int lane, int n) {
  const int left = n - lane * lane_elements;
  return left < 0 ? 0 : left < lane_elements ? left : lane_elements;
}

}  // namespace
}  // namespace onepass
