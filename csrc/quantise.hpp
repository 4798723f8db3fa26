// The 8-bit code of states: one float32 scale (the largest magnitude) for a block of elements, one byte per element.
#pragma once

#include "numeric.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// A byte holds the upper bits of the float x / scale, from the exponent's low bits down to `mantissa` bits: as precise
// for small elements of the block as for large ones. `sign` bit in front for signed states. Code 0 is zero, the highest
// code the scale itself.
template <bool nonnegative>
struct Code {
  static constexpr int mantissa = 3;
  static constexpr int shift = 23 - mantissa;
  static constexpr uint32_t highest = nonnegative ? 255 : 127;
  static constexpr uint32_t base = (127u << mantissa) - highest;  // of code 0; that of 1.0 is `highest`

  static uint8_t encode(float y) {
    const uint32_t u = bits_as<uint32_t>(y);
    const uint32_t magnitude = u & 0x7fffffffu;
    const uint32_t rounded = (magnitude + (1u << (shift - 1))) >> shift;
    const uint32_t code = rounded > base ? rounded - base : 0u;
    const uint32_t limited = code < highest ? code : highest;
    return static_cast<uint8_t>(nonnegative ? limited : limited | (u >> 31 << 7));
  }
  static float decode(uint8_t code) {
    const uint32_t magnitude = nonnegative ? code : code & 0x7fu;
    const uint32_t bits = (magnitude + base) << shift;
    const uint32_t sign = nonnegative ? 0u : uint32_t{code & 0x80u} << 24;
    return bits_as<float>(magnitude == 0 ? 0u : bits | sign);
  }
};

template <bool nonnegative, class C>
inline void dequantise_as(const uint8_t* codes, int64_t n, float scale, C* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<C>(Code<nonnegative>::decode(codes[i]) * scale);
}

template <bool nonnegative, class C>
inline float quantise_as(const C* __restrict in, int64_t n, uint8_t* __restrict codes) {
  uint32_t largest = 0;  // bits of a non-negative float sort as the float does, NaN above all
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = bits_as<uint32_t>(static_cast<float>(in[i])) & 0x7fffffffu;
    largest = largest > u ? largest : u;
  }
  const float scale = bits_as<float>(largest);
  const float inverse = scale >= 0x1p-126f ? 1 / scale : 0.0f;  // whose inverse is finite
  for (int64_t i = 0; i < n; ++i) codes[i] = Code<nonnegative>::encode(static_cast<float>(in[i]) * inverse);
  return scale;
}

template <class C>
inline void dequantise(const uint8_t* codes, int64_t n, float scale, bool nonnegative, C* out) {
  nonnegative ? dequantise_as<true>(codes, n, scale, out) : dequantise_as<false>(codes, n, scale, out);
}

template <class C>
inline float quantise(const C* in, int64_t n, bool nonnegative, uint8_t* codes) {
  return nonnegative ? quantise_as<true>(in, n, codes) : quantise_as<false>(in, n, codes);
}

}  // namespace
}  // namespace onepass
