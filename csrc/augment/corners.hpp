// The four pixels around each place of a tile: from a texture, by gather instructions where there are any, or, where
// the box is too large to be worth a copy, straight from the picture.
#pragma once

#include "augment/coordinates.hpp"
#include "augment/texture.hpp"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// out[i] = the 32 bits at data + index[i] * Size
template <int Size>
inline void gather_words(const char* data, const int32_t* __restrict index, int64_t n, uint32_t* __restrict out) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    const __m512i at = _mm512_loadu_si512(index + i);
    const __m512i got = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xffff, at, data, Size);
    _mm512_storeu_si512(out + i, got);
  }
#elif defined(__AVX2__)
  for (; i + 8 <= n; i += 8) {
    const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index + i));
    const __m256i got = _mm256_i32gather_epi32(reinterpret_cast<const int*>(data), at, Size);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), got);
  }
#endif
  for (; i < n; ++i) {
    const char* const at = data + int64_t{index[i]} * Size;
    if constexpr (Size == 4) {
      out[i] = load<uint32_t>(at);
    } else {  // the same on a little-endian machine, and right on others
      out[i] = uint32_t{load<uint16_t>(at)} | uint32_t{load<uint16_t>(at + 2)} << 16;
    }
  }
}

// Bytes: t.corner[0] gets the pixel, the one below it, then those right of both, from the lowest byte on. Floats:
// t.corner[0..3] get the same four. `index` comes from the tile's places.
inline void corners_from_texture(const Texture& texture, Pixel pixel, int64_t c, const int32_t* index, int64_t n,
                                 Tile& t) {
  if (pixel == Pixel::u8) {
    gather_words<2>(texture.data + 2 * c * texture.plane, index, n, t.corner[0]);
  } else {
    const char* const data = texture.data + 4 * c * texture.plane;
    gather_words<4>(data, index, n, t.corner[0]);
    gather_words<4>(data + 4 * texture.stride, index, n, t.corner[1]);
    gather_words<4>(data + 4, index, n, t.corner[2]);
    gather_words<4>(data + 4 * texture.stride + 4, index, n, t.corner[3]);
  }
}

inline void corners_from_picture(const Warp& warp, const Picture& picture, const Box& box, int64_t c, int64_t n,
                                 Tile& t) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t x = box.x + t.x[i], y = box.y + t.y[i];
    const char* const at = picture.data + c * picture.channel + y * picture.row + x * picture.column;
    const int64_t right = x + 1 < warp.width ? picture.column : 0, down = y + 1 < warp.height ? picture.row : 0;
    if (warp.pixel == Pixel::u8) {
      t.corner[0][i] = uint32_t{load<uint8_t>(at)} | uint32_t{load<uint8_t>(at + down)} << 8 |
                       uint32_t{load<uint8_t>(at + right)} << 16 | uint32_t{load<uint8_t>(at + right + down)} << 24;
    } else {
      t.corner[0][i] = load<uint32_t>(at);
      t.corner[1][i] = load<uint32_t>(at + down);
      t.corner[2][i] = load<uint32_t>(at + right);
      t.corner[3][i] = load<uint32_t>(at + right + down);
    }
  }
}

}  // namespace
}  // namespace onepass
