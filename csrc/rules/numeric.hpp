// Storage types of tensors: widened to the compute type on read, rounded once (to nearest even) on write.
#pragma once

#include <cstdint>

#include "rules/device.hpp"

namespace onepass {
namespace {  // internal linkage: every instruction set compiles its own copy, and none may leak into another

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <class To, class From>
ONEPASS_ELEMENT To bits_as(From x) {
  return __builtin_bit_cast(To, x);
}

ONEPASS_ELEMENT float widen(bf16 x) { return bits_as<float>(uint32_t{x.bits} << 16); }

// Branch-free so that it vectorises without F16C, and in normal numbers only so that flush-to-zero cannot change it.
ONEPASS_ELEMENT float widen(f16 x) {
  constexpr uint32_t bias = 112u << 23;  // from exponent bias 15 to 127
  const uint32_t magnitude = (x.bits & 0x7fffu) << 13;
  const uint32_t normal = magnitude + bias;
  const uint32_t special = normal + bias;  // infinity and NaN
  const float subnormal = bits_as<float>(normal + (1u << 23)) - 0x1p-14f;
  const uint32_t finite = magnitude < (1u << 23) ? bits_as<uint32_t>(subnormal) : normal;
  const uint32_t sign = (x.bits & 0x8000u) << 16;
  return bits_as<float>(sign | (magnitude >= (31u << 23) ? special : finite));
}

ONEPASS_ELEMENT float widen(float x) { return x; }
ONEPASS_ELEMENT double widen(double x) { return x; }

ONEPASS_ELEMENT void narrow(float x, float& out) { out = x; }
ONEPASS_ELEMENT void narrow(double x, double& out) { out = x; }
ONEPASS_ELEMENT void narrow(double x, float& out) { out = static_cast<float>(x); }

ONEPASS_ELEMENT void narrow(float x, bf16& out) {
  const uint32_t u = bits_as<uint32_t>(x);
  const uint32_t nearest = u + 0x7fffu + ((u >> 16) & 1u);
  const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
  out.bits = static_cast<uint16_t>(nan ? 0x7fc0u : nearest >> 16);
}

ONEPASS_ELEMENT void narrow(float x, f16& out) {
  const uint32_t u = bits_as<uint32_t>(x);
  const uint32_t magnitude = u & 0x7fffffffu;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Adding 0.5 leaves a subnormal half in the low bits, rounded by the addition itself.
  const uint32_t subnormal = bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - bits_as<uint32_t>(0.5f);
  const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t rounded = magnitude >= (143u << 23) ? special : finite;
  out.bits = static_cast<uint16_t>(rounded | ((u >> 16) & 0x8000u));
}

// A float32 as its bf16 and the 16 bits that are left. One value in 2^17, halfway between two bf16 and rounded down,
// has no pair of its own: it becomes its neighbour one float32 below.
ONEPASS_ELEMENT float join(bf16 high, int16_t low) {
  return bits_as<float>((uint32_t{high.bits} << 16) + static_cast<uint32_t>(int32_t{low}));
}

ONEPASS_ELEMENT void split(float x, bf16& high, int16_t& low) {
  narrow(x, high);
  const auto rest = static_cast<int32_t>(bits_as<uint32_t>(x) - (uint32_t{high.bits} << 16));
  low = static_cast<int16_t>(x != x ? 0 : rest < 32767 ? rest : 32767);
}

template <class Half>
ONEPASS_ELEMENT void narrow(double x, Half& out) {
  narrow(static_cast<float>(x), out);
}

// Whether the float32 master of a half parameter still counts: as long as the parameter is its rounding, for others may
// have written the parameter.
template <class C>
ONEPASS_ELEMENT bool is_rounding(C master, C parameter) {
  f16 rounded;
  narrow(master, rounded);
  return widen(rounded) == parameter;
}

// Stochastic rounding with 16 random bits: up with the probability of the part that is cut off.
ONEPASS_ELEMENT void narrow(float x, uint32_t random, bf16& out) {
  const uint32_t u = bits_as<uint32_t>(x);
  const bool finite = (u & 0x7f800000u) != 0x7f800000u;
  bf16 nearest;
  narrow(x, nearest);
  out.bits = static_cast<uint16_t>(finite ? (u + random) >> 16 : uint32_t{nearest.bits});
}

ONEPASS_ELEMENT void narrow(float x, uint32_t random, f16& out) {
  const uint32_t u = bits_as<uint32_t>(x);
  const uint32_t magnitude = u & 0x7fffffffu;
  const uint32_t normal = (magnitude - (112u << 23) + (random >> 3)) >> 13;
  const float steps = bits_as<float>(magnitude) * 0x1p24f;  // of the smallest subnormal half
  const float whole = static_cast<float>(static_cast<int32_t>(magnitude < (113u << 23) ? steps : 0.0f));
  const uint32_t subnormal =
      static_cast<uint32_t>(whole) + (steps - whole > static_cast<float>(random) * 0x1p-16f ? 1u : 0u);
  f16 nearest;
  narrow(x, nearest);
  const uint32_t rounded = (magnitude < (113u << 23) ? subnormal : normal) | ((u >> 16) & 0x8000u);
  out.bits = static_cast<uint16_t>(magnitude >= (143u << 23) ? uint32_t{nearest.bits} : rounded);
}

}  // namespace
}  // namespace onepass
