// The 8-bit code of states: a block of elements shares one float32 scale, a power of two; each has one byte.
//
// A byte counts the steps of 2^-4 in the binary exponent and mantissa of 1.125 + |x| / scale: logarithmic for large
// elements (an error of at most 1/16 after rounding), linear for the smallest. What is cut off is rounded up or down by
// a dither that differs from step to step and averages out, since the average of a state that moves by less than a
// step of the code would stand still under rounding to nearest.
#pragma once

#include "rules/numeric.hpp"
#include "rules/rules.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr int code_shift = 19;  // leaves 4 of a float's mantissa bits
constexpr float code_offset = 1.125f;
constexpr uint32_t code_of_zero = 0x7F2;  // bits of code_offset >> code_shift

struct Coding {
  bool has_sign;
  uint32_t spread;       // of the dither over the elements of a block; 0: round to nearest
  uint32_t base;         // of the dither at the first element
  int highest_exponent;  // of 1.125 + |x| / scale, at the largest element

  ONEPASS_DEVICE Coding(StateKind kind, uint64_t draw)
      : has_sign(kind == StateKind::with_sign),
        // A maximum cannot stand still, but dither would let it climb.
        spread(kind == StateKind::maximum ? 0 : 0x9E3779B9u),  // the golden ratio: neighbours differ as much as can be
        base(kind == StateKind::maximum ? 0x80000000u
                                        : static_cast<uint32_t>(draw) * 0x6A09E667u + (has_sign ? 0x80000000u : 0u)),
        highest_exponent(has_sign ? 8 : 16) {}

  // What element number `i` of a block adds to the bits of its number, so that the code stands above `code_shift`.
  ONEPASS_DEVICE uint32_t dither(uint32_t i) const {
    return ((i * spread + base) >> (32 - code_shift)) - (code_of_zero << code_shift);
  }
};

// One element of a block.
template <class C>
ONEPASS_ELEMENT C decode(uint8_t code, float scale, const Coding& coding) {
  const uint32_t digits = coding.has_sign ? code & 0x7Fu : code;
  const float shifted = bits_as<float>((digits + code_of_zero) << code_shift);
  const uint32_t magnitude = bits_as<uint32_t>((shifted - code_offset) * scale);
  const uint32_t sign = uint32_t{code} << 24 & 0x80000000u;
  return static_cast<C>(bits_as<float>(coding.has_sign ? magnitude | sign : magnitude));
}

// What the largest magnitude of a block is found by: bits of non-negative floats sort as they do, NaN above all.
template <class C>
ONEPASS_ELEMENT uint32_t magnitude_bits(C x) {
  return bits_as<uint32_t>(static_cast<float>(x)) & 0x7fffffffu;
}

// x * inverse + code_offset, where `inverse` is a power of two and the product therefore exact: in one instruction, if
// there is one.
ONEPASS_ELEMENT float scaled(float x, float inverse) {
#ifdef __FMA__
  return __builtin_fmaf(x, inverse, code_offset);
#else
  return x * inverse + code_offset;
#endif
}

struct BlockScale {
  float scale;  // NaN, and so the whole block, if infinity or NaN is anywhere in it
  float inverse;

  ONEPASS_DEVICE BlockScale(uint32_t largest, const Coding& coding) {
    const int exponent = static_cast<int>(largest >> 23);
    const int used = exponent > 20 ? exponent : 20;  // below, scale or inverse would not be normal numbers
    const bool finite = exponent < 255;
    scale = bits_as<float>(finite ? static_cast<uint32_t>(used + 1 - coding.highest_exponent) << 23 : 0x7fc00000u);
    inverse = bits_as<float>(finite ? static_cast<uint32_t>(253 - used + coding.highest_exponent) << 23 : 0u);
  }
};

// An element of a block, with the dither of its number.
template <class C>
ONEPASS_ELEMENT uint8_t encode(C value, uint32_t dither, float inverse, const Coding& coding) {
  const uint32_t u = bits_as<uint32_t>(static_cast<float>(value)), magnitude = u & 0x7fffffffu;
  const uint32_t t = bits_as<uint32_t>(scaled(bits_as<float>(magnitude), inverse));
  const uint32_t sum = t + dither;
  constexpr uint32_t sign = 0x80u << code_shift;
  const uint32_t least = magnitude != 0 ? 1u << code_shift : 0u;  // or a second moment would vanish under the first
  const uint32_t signless = sum > least ? sum : least;
  return static_cast<uint8_t>((coding.has_sign ? sum | (u >> (24 - code_shift) & sign) : signless) >> code_shift);
}

template <class C>
inline void dequantize(const uint8_t* codes, int64_t n, float scale, Coding coding, C* __restrict out) {
  if (coding.has_sign) {  // the compiler knows it in each loop
    coding.has_sign = true;
    for (int64_t i = 0; i < n; ++i) out[i] = decode<C>(codes[i], scale, coding);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = decode<C>(codes[i], scale, coding);
  }
}

// The dithers of the elements of all blocks, kept for the tensors to come.
struct Dithers {
  uint32_t of[quantized_block];
  int64_t made;  // so many of them, for a coding of these two numbers; 0 at first
  uint32_t spread, base;

  void make(const Coding& coding, int64_t n) {
    if (n > quantized_block) n = quantized_block;
    if (made >= n && spread == coding.spread && base == coding.base) return;
    for (int64_t i = 0; i < n; ++i) of[i] = coding.dither(static_cast<uint32_t>(i));
    made = n;
    spread = coding.spread;
    base = coding.base;
  }
};

// Returns the scale.
template <class C>
inline float quantize(const C* __restrict in, int64_t n, Coding coding, const Dithers& dithers,
                      uint8_t* __restrict codes) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t u = magnitude_bits(in[i]);
    largest = largest > u ? largest : u;
  }
  const BlockScale block(largest, coding);
  const uint32_t* __restrict const dither = dithers.of;
  if (coding.has_sign) {  // as there
    coding.has_sign = true;
    for (int64_t i = 0; i < n; ++i) codes[i] = encode(in[i], dither[i], block.inverse, coding);
  } else {
    for (int64_t i = 0; i < n; ++i) codes[i] = encode(in[i], dither[i], block.inverse, coding);
  }
  return block.scale;
}

}  // namespace
}  // namespace onepass
