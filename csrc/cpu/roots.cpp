// Whether square roots that an instruction set computes by multiplications are right: compiled once for each.
#include "cpu/avx512.hpp"
#include "cpu/kernels.hpp"

bool onepass::ONEPASS_KERNEL(roots_are_exact)() {
#ifdef __AVX512F__
  // From 1 to 4: all others are these times a power of 4.
  for (int bits = 127 << 23; bits < 129 << 23; bits += 16) {
    const __m512i next = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 a = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_set1_epi32(bits), next));
    if (_mm512_cmpneq_ps_mask(refined_root(a, 0xffff), hardware_root(a)) != 0) return false;
  }
#endif
  return true;
}
