// The 8 elements that one lane of a warp takes, on their way from memory and back: of any type and layout.
#pragma once

#include "cuda/vector.hpp"
#include "cuda/work.hpp"
#include "rules/quantize.hpp"
#include "rules/rules.hpp"
#include "rules/stochastic.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr int lane_elements = 8;
static_assert(lane_elements * warp_lanes == quantized_block);

// One element, wherever it lies. Called rather than inlined: divisions are long.
template <class T>
ONEPASS_DEVICE ONEPASS_CALLED T load_one(const Segment& segment, int k, int64_t i) {
  return static_cast<const T*>(segment.data[k])[segment.strided != nullptr ? offset_of(*segment.strided, k, i) : i];
}
template <class T>
ONEPASS_DEVICE ONEPASS_CALLED void store_one(const Segment& segment, int k, int64_t i, T x) {
  static_cast<T*>(segment.data[k])[segment.strided != nullptr ? offset_of(*segment.strided, k, i) : i] = x;
}

// Elements [at, at + n) of a segment; `place` is that of the first in its block.
template <class C>
class LaneMemory {
 protected:
  ONEPASS_DEVICE LaneMemory(const Segment& segment, const Scalars& scalars, int64_t at, int n, int place)
      : segment_(segment), scalars_(scalars), at_(at), n_(n), place_(place) {}

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

  ONEPASS_DEVICE Coding coding(int k) const { return {state_kind(segment_.rule, k), scalars_.draw}; }
  ONEPASS_DEVICE float* scale_of(int k) const { return segment_.scale[k] + at_ / quantized_block; }

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

  ONEPASS_DEVICE void write_codes(int k, const C (&in)[lane_elements], uint32_t largest) const {
    const Coding code = coding(k);
    const BlockScale block(largest, code);
    Pack<uint8_t, lane_elements> pack;
    ONEPASS_UNROLL
    for (int j = 0; j < lane_elements; ++j) {
      pack.at[j] = encode(in[j], code.dither(static_cast<uint32_t>(place_ + j)), block.inverse, code);
    }
    write_raw(first_state + k, pack);
    if (place_ == 0) *scale_of(k) = block.scale;
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
};

}  // namespace
}  // namespace onepass
