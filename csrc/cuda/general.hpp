// The update of chunks of any types and layout, with every option. A warp takes a tile of 256 elements, which is a
// block of 8-bit states, and each of its lanes 8 elements, which share a block of random numbers.
#pragma once

#include "element.hpp"
#include "quantise.hpp"
#include "rounding.hpp"
#include "vector.hpp"
#include "work.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr int lane_elements = 8;
static_assert(lane_elements * warp_lanes == quantised_block);

// One element, wherever it lies. Called rather than inlined: divisions are long.
template <class T>
ONEPASS_DEVICE ONEPASS_CALLED T load_one(const Segment& segment, int k, int64_t i) {
  return static_cast<const T*>(segment.data[k])[segment.strided != nullptr ? offset_of(*segment.strided, k, i) : i];
}
template <class T>
ONEPASS_DEVICE ONEPASS_CALLED void store_one(const Segment& segment, int k, int64_t i, T x) {
  static_cast<T*>(segment.data[k])[segment.strided != nullptr ? offset_of(*segment.strided, k, i) : i] = x;
}

// The elements of one lane: `compute` reads them and does the arithmetic, `write` puts them back. Between the two, the
// lanes of a warp agree on the largest magnitudes of states in 8 bits.
template <class C>
class Lane {
 public:
  // Elements [at, at + n) of the segment; `place` is that of the first in its block.
  ONEPASS_DEVICE Lane(const Segment& segment, const Scalars& scalars, int64_t at, int n, int place)
      : segment_(segment), scalars_(scalars), at_(at), n_(n), place_(place) {}

  ONEPASS_DEVICE void compute() {
    ONEPASS_UNROLL
    for (int k = 0; k < master; ++k) {
      if (segment_.has(k)) read(k, value_[k]);
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
      const Average<C> average(scalars_);
      each([&](int j) { value_[ema][j] = average(value_[param][j], value_[ema][j]); });
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
        write_codes(k, largest[k]);
      } else {
        write_as_is(first_state + k, value_[first_state + k]);
      }
    }
    if (segment_.has(ema)) write_as_is(ema, value_[ema]);
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

  template <class T>
  ONEPASS_DEVICE bool is_pack(int k) const {
    const auto address = reinterpret_cast<uintptr_t>(static_cast<T*>(segment_.data[k]) + at_);
    return segment_.strided == nullptr && n_ == lane_elements && address % pack_alignment<T, lane_elements> == 0;
  }
  template <class T, class U, class Convert>
  ONEPASS_DEVICE void read_as(int k, U (&out)[lane_elements], const Convert& convert) const {
    if (is_pack<T>(k)) {
      const Pack<T, lane_elements> pack = load_pack<T, lane_elements>(static_cast<T*>(segment_.data[k]) + at_);
      ONEPASS_UNROLL
      for (int j = 0; j < lane_elements; ++j) out[j] = convert(pack.at[j]);
    } else {
      ONEPASS_UNROLL
      for (int j = 0; j < lane_elements; ++j) {
        if (j < n_) out[j] = convert(load_one<T>(segment_, k, at_ + j));
      }
    }
  }
  template <class T>
  ONEPASS_DEVICE void write_raw(int k, const Pack<T, lane_elements>& pack) const {
    if (is_pack<T>(k)) {
      store_pack(static_cast<T*>(segment_.data[k]) + at_, pack);
    } else {
      ONEPASS_UNROLL
      for (int j = 0; j < lane_elements; ++j) {
        if (j < n_) store_one(segment_, k, at_ + j, pack.at[j]);
      }
    }
  }
  template <class T>
  ONEPASS_DEVICE void write_as(int k, const C (&in)[lane_elements]) const {
    Pack<T, lane_elements> pack;
    ONEPASS_UNROLL
    for (int j = 0; j < lane_elements; ++j) narrow(in[j], pack.at[j]);
    write_raw(k, pack);
  }

  ONEPASS_DEVICE Coding coding(int k) const { return {kind_of_state(segment_.rule, k), scalars_.draw}; }
  ONEPASS_DEVICE float* scale_of(int k) const { return segment_.scale[k] + at_ / quantised_block; }

  ONEPASS_DEVICE void read(int k, C (&out)[lane_elements]) const {
    const auto widened = [](auto x) { return static_cast<C>(widen(x)); };
    each_zero(out);
    if (n_ <= 0) return;
    switch (segment_.dtype[k]) {
      case Dtype::f32:
        return read_as<float>(k, out, widened);
      case Dtype::f64:
        return read_as<double>(k, out, widened);
      case Dtype::bf16:
        return read_as<bf16>(k, out, widened);
      case Dtype::f16:
        return read_as<f16>(k, out, widened);
      case Dtype::u8: {
        const Coding code = coding(k - first_state);
        const float scale = *scale_of(k - first_state);
        return read_as<uint8_t>(k, out, [&](uint8_t x) { return decode<C>(x, scale, code); });
      }
      case Dtype::i16:
        return;
    }
  }
  ONEPASS_DEVICE static void each_zero(C (&out)[lane_elements]) {
    ONEPASS_UNROLL
    for (int j = 0; j < lane_elements; ++j) out[j] = 0;
  }

  ONEPASS_DEVICE void read_master() {
    if (n_ <= 0) return;
    if (segment_.dtype[master] == Dtype::i16) {
      int16_t low[lane_elements] = {};
      read_as<int16_t>(master, low, [](int16_t x) { return x; });
      each([&](int j) {
        bf16 high;
        narrow(value_[param][j], high);
        value_[param][j] = join(high, low[j]);
      });
    } else {
      C whole[lane_elements] = {};
      read_as<float>(master, whole, [](float x) { return static_cast<C>(x); });
      each([&](int j) {
        if (is_rounding(whole[j], value_[param][j])) value_[param][j] = whole[j];
      });
    }
  }

  ONEPASS_DEVICE void write_as_is(int k, const C (&in)[lane_elements]) const {
    switch (segment_.dtype[k]) {
      case Dtype::f32:
        return write_as<float>(k, in);
      case Dtype::f64:
        return write_as<double>(k, in);
      case Dtype::bf16:
        return write_as<bf16>(k, in);
      case Dtype::f16:
        return write_as<f16>(k, in);
      default:
        return;
    }
  }

  ONEPASS_DEVICE void write_codes(int k, uint32_t largest) const {
    const Coding code = coding(k);
    const BlockScale block(largest, code);
    Pack<uint8_t, lane_elements> pack;
    ONEPASS_UNROLL
    for (int j = 0; j < lane_elements; ++j) {
      pack.at[j] = encode(value_[first_state + k][j], static_cast<uint32_t>(place_ + j), block.inverse, code);
    }
    write_raw(first_state + k, pack);
    if (place_ == 0) *scale_of(k) = block.scale;
  }

  ONEPASS_DEVICE void write_param() const {
    const C(&p)[lane_elements] = value_[param];
    const Dtype dtype = segment_.dtype[param];
    if (segment_.has(master) && segment_.dtype[master] == Dtype::i16) {
      Pack<bf16, lane_elements> high;
      Pack<int16_t, lane_elements> low;
      ONEPASS_UNROLL
      for (int j = 0; j < lane_elements; ++j) split(static_cast<float>(p[j]), high.at[j], low.at[j]);
      write_raw(param, high);
      write_raw(master, low);
      return;
    }
    if (segment_.has(master)) write_as<float>(master, p);
    if (!segment_.has(master) && scalars_.stochastic && dtype == Dtype::bf16) {
      write_stochastic<bf16>(p);
    } else if (!segment_.has(master) && scalars_.stochastic && dtype == Dtype::f16) {
      write_stochastic<f16>(p);
    } else {
      write_as_is(param, p);
    }
  }

  template <class T>
  ONEPASS_DEVICE void write_stochastic(const C (&p)[lane_elements]) const {
    const uint64_t first = static_cast<uint64_t>(segment_.start + at_), skip = first % draws_per_block;
    const Block one = draw(first / draws_per_block, scalars_);
    const Block next = skip != 0 ? draw(first / draws_per_block + 1, scalars_) : one;
    Pack<T, lane_elements> pack;
    ONEPASS_UNROLL
    for (int j = 0; j < lane_elements; ++j) {
      const uint64_t place = skip + static_cast<uint64_t>(j);
      const uint16_t bits = bits_for(place < draws_per_block ? one : next, place % draws_per_block);
      narrow(static_cast<float>(p[j]), uint32_t{bits}, pack.at[j]);
    }
    write_raw(param, pack);
  }

  const Segment& segment_;
  const Scalars& scalars_;
  int64_t at_;
  int n_, place_;
  C value_[master][lane_elements];
};

// Calls tile(segment, scalars, begin, n) for the tiles that fall to a warp: chunks go to blocks in turn, the tiles of a
// chunk to the block's warps.
template <class Tile>
ONEPASS_DEVICE inline void each_tile(const Work& work, int64_t block, int64_t blocks, int warp, int warps,
                                     const Tile& tile) {
  if (work.outcome != nullptr && work.outcome->skip) return;
  for (int64_t c = block; c < work.count; c += blocks) {
    const Chunk chunk = work.chunks[c];
    const Segment& segment = work.segments[chunk.segment];
    const int64_t begin = chunk.number * work.chunk_elements, left = segment.count - begin;
    const int64_t end = begin + (left < work.chunk_elements ? left : work.chunk_elements);
    for (int64_t at = begin + warp * quantised_block; at < end; at += warps * quantised_block) {
      tile(segment, work.scalars_of(segment), at,
           static_cast<int>(end - at < quantised_block ? end - at : quantised_block));
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
