// Sixteen floats as one number, as far as the rules need it, where the processor has AVX-512.
//
// Square roots and divisions share one slow unit, which decides how fast a rule with both is. Here most square roots
// are multiplications beside it, and bit for bit the same.
#pragma once

#include <cstdint>

#include "rules/device.hpp"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

enum class Root { refined_rsqrt, hardware };  // how square roots are taken

#ifdef __AVX512F__
constexpr bool has_lanes = true;

template <Root>
struct Lanes {
  static constexpr int64_t count = 16;
  __m512 x;

  ONEPASS_ELEMENT Lanes(__m512 lanes) : x(lanes) {}
  ONEPASS_ELEMENT explicit Lanes(double number) : x(_mm512_set1_ps(static_cast<float>(number))) {}
  ONEPASS_ELEMENT static Lanes load(const float* from) { return _mm512_loadu_ps(from); }
  ONEPASS_ELEMENT void store(float* to) const { _mm512_storeu_ps(to, x); }

  ONEPASS_ELEMENT friend Lanes operator+(Lanes a, Lanes b) { return a.x + b.x; }
  ONEPASS_ELEMENT friend Lanes operator-(Lanes a, Lanes b) { return a.x - b.x; }
  ONEPASS_ELEMENT friend Lanes operator*(Lanes a, Lanes b) { return a.x * b.x; }
  ONEPASS_ELEMENT friend Lanes operator/(Lanes a, Lanes b) { return a.x / b.x; }
  ONEPASS_ELEMENT friend Lanes at_least(Lanes a, Lanes least) { return a.x < least.x ? least.x : a.x; }
  ONEPASS_ELEMENT friend Lanes maximum(Lanes a, Lanes b) {
    const __m512 larger = a.x > b.x ? a.x : b.x;
    return a.x != a.x ? a.x : larger;
  }
};

ONEPASS_ELEMENT __m512 hardware_root(__m512 a) { return _mm512_maskz_sqrt_ps(0xffff, a); }

// Goldschmidt's method, from the processor's own approximation on, with a last step that rounds correctly (Markstein,
// 2000). So it does for every finite float from `smallest_root` on and for zero, unless that approximation is unlucky:
// `roots_are_exact` in kernels.hpp tells.
constexpr int smallest_root = (127 - 77) << 23;  // as bits: below it, what the root lacks may be no normal number
ONEPASS_ELEMENT __m512 refined_root(__m512 a, __mmask16 nonzero) {
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 inverse = _mm512_maskz_rsqrt14_ps(nonzero, a);
  const __m512 rough_root = a * inverse, rough_half = inverse * half;  // half the inverse
  const __m512 error = _mm512_fnmadd_ps(rough_root, rough_half, half);
  const __m512 root = _mm512_fmadd_ps(rough_root, error, rough_root);
  const __m512 half_inverse = _mm512_fmadd_ps(rough_half, error, rough_half);
  const __m512 rest = _mm512_fnmadd_ps(root, root, a);
  return _mm512_fmadd_ps(rest, half_inverse, root);
}

ONEPASS_ELEMENT Lanes<Root::hardware> square_root(Lanes<Root::hardware> a) { return hardware_root(a.x); }
ONEPASS_ELEMENT Lanes<Root::refined_rsqrt> square_root(Lanes<Root::refined_rsqrt> a) {
  constexpr int infinite = 255 << 23;
  const __m512i bits = _mm512_castps_si512(a.x);
  const __mmask16 nonzero = _mm512_test_epi32_mask(bits, bits);
  const __m512i above = _mm512_sub_epi32(bits, _mm512_set1_epi32(smallest_root));
  const __mmask16 outside = _mm512_mask_cmpge_epu32_mask(nonzero, above, _mm512_set1_epi32(infinite - smallest_root));
  if (__builtin_expect(outside != 0, false)) return hardware_root(a.x);
  return refined_root(a.x, nonzero);
}
#else
constexpr bool has_lanes = false;

template <Root>
struct Lanes {
  static constexpr int64_t count = 1;
};
#endif

template <class V>
constexpr bool is_lanes = false;
template <Root root>
constexpr bool is_lanes<Lanes<root>> = true;

}  // namespace
}  // namespace onepass
