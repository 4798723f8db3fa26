// The four pixels around each place of a tile: from a copy of the box that a band reads, laid out for gather
// instructions, or, where the box is too large to be worth it, straight from the picture.
#pragma once

#include <cstdlib>
#include <cstring>

#include "fill.hpp"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

struct Picture {
  const char* data;
  int64_t channel, row, column;  // strides in bytes
};

// Pixels low to high of a picture, both included.
struct Box {
  int64_t x, y, width, height;
};

// The copy, plane by plane. Of bytes, each word holds a pixel with its right, lower and lower right neighbours; of
// floats there is one column and one row more, the neighbours of the last.
struct Texture {
  uint32_t* words;
  int64_t stride, plane;
};

// Memory that grows and is kept from one picture to the next.
struct Scratch {
  void* data = nullptr;
  size_t size = 0;

  void* at_least(size_t wanted) {
    if (wanted > size) {
      std::free(data);
      data = std::malloc(wanted);
      size = data == nullptr ? 0 : wanted;
    }
    return data;
  }
  ~Scratch() { std::free(data); }
};

template <class T>
inline T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);  // pictures need not be aligned
  return value;
}

// out[i] = words[index[i]]
inline void gather_words(const uint32_t* words, const int32_t* __restrict index, int64_t n, uint32_t* __restrict out) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    const __m512i at = _mm512_loadu_si512(index + i);
    const __m512i got = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), 0xffff, at, words, 4);
    _mm512_storeu_si512(out + i, got);
  }
#elif defined(__AVX2__)
  for (; i + 8 <= n; i += 8) {
    const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index + i));
    const __m256i got = _mm256_i32gather_epi32(reinterpret_cast<const int*>(words), at, 4);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), got);
  }
#endif
  for (; i < n; ++i) out[i] = words[index[i]];
}

// n + 1 values of a row; the last is a copy if `edge` says that the picture ends there.
template <class T>
inline void read_line(const char* from, int64_t stride, int64_t n, bool edge, T* __restrict line) {
  const int64_t available = edge ? n : n + 1;
  if (stride == static_cast<int64_t>(sizeof(T))) {
    std::memcpy(line, from, static_cast<size_t>(available) * sizeof(T));
  } else {
    for (int64_t i = 0; i < available; ++i) line[i] = load<T>(from + i * stride);
  }
  if (edge) line[n] = line[n - 1];
}

// The same for three byte channels side by side, the usual NHWC; out planes are n + 1 apart.
inline void read_interleaved(const char* from, int64_t n, bool edge, uint8_t* __restrict line) {
  const uint8_t* __restrict const bytes = reinterpret_cast<const uint8_t*>(from);
  const int64_t available = edge ? n : n + 1, plane = n + 1;
  uint8_t* __restrict const red = line;
  uint8_t* __restrict const green = line + plane;
  uint8_t* __restrict const blue = line + 2 * plane;
#pragma GCC ivdep
  for (int64_t i = 0; i < available; ++i) {
    red[i] = bytes[3 * i];
    green[i] = bytes[3 * i + 1];
    blue[i] = bytes[3 * i + 2];
  }
  if (edge) {
    for (uint8_t* plane_end = line + n; plane_end < line + 3 * plane; plane_end += plane) *plane_end = plane_end[-1];
  }
}

inline size_t texture_bytes(const Warp& warp, const Box& box) {
  const int64_t words = ((box.width + 1) * (box.height + 1) + surplus) * warp.channels;
  const int64_t lines = 2 * (box.width + 1) * warp.channels + surplus;
  return static_cast<size_t>(4 * words + lines);
}

// Words of one row from its line and the one below, in blocks so that short rows vectorise too: up to `surplus` values
// are read and written too many.
inline void pack_row(const uint8_t* __restrict a, const uint8_t* __restrict b, int64_t n, uint32_t* __restrict out) {
  for (int64_t x = 0; x < n; x += surplus) {
    for (int64_t i = x; i < x + surplus; ++i) {
      out[i] = uint32_t{a[i]} | uint32_t{a[i + 1]} << 8 | uint32_t{b[i]} << 16 | uint32_t{b[i + 1]} << 24;
    }
  }
}

inline Texture pack_bytes(const Warp& warp, const Picture& picture, const Box& box, void* memory) {
  const int64_t n = box.width, channels = warp.channels, line = n + 1;
  const bool edge = box.x + n == warp.width;
  const bool interleaved = channels == 3 && picture.channel == 1 && picture.column == 3;
  const Texture texture = {static_cast<uint32_t*>(memory), n, n * box.height + surplus};
  uint8_t* const lines = static_cast<uint8_t*>(memory) + 4 * texture.plane * channels;
  uint8_t* const halves[2] = {lines, lines + line * channels};
  for (int64_t y = 0; y <= box.height; ++y) {
    const bool below = box.y + y < warp.height;
    const char* const from = picture.data + (box.y + y) * picture.row + box.x * picture.column;
    uint8_t* const lower = below ? halves[y & 1] : halves[(y + 1) & 1];
    if (below && interleaved) {
      read_interleaved(from, n, edge, lower);
    } else if (below) {
      for (int64_t c = 0; c < channels; ++c) {
        read_line(from + c * picture.channel, picture.column, n, edge, lower + c * line);
      }
    }
    if (y == 0) continue;
    for (int64_t c = 0; c < channels; ++c) {
      pack_row(halves[(y + 1) & 1] + c * line, lower + c * line, n, texture.words + c * texture.plane + (y - 1) * n);
    }
  }
  return texture;
}

inline Texture pack_floats(const Warp& warp, const Picture& picture, const Box& box, void* memory) {
  const Texture texture = {static_cast<uint32_t*>(memory), box.width + 1, (box.width + 1) * (box.height + 1)};
  const bool edge = box.x + box.width == warp.width;
  for (int64_t c = 0; c < warp.channels; ++c) {
    for (int64_t y = 0; y <= box.height; ++y) {
      const int64_t row = box.y + y < warp.height ? box.y + y : warp.height - 1;
      const char* const from = picture.data + c * picture.channel + row * picture.row + box.x * picture.column;
      read_line(from, picture.column, box.width, edge, texture.words + c * texture.plane + y * texture.stride);
    }
  }
  return texture;
}

// Bytes: t.corner[0] gets words as in a texture. Floats: t.corner[0..3] get the pixel, its right, lower and lower right
// neighbours. `index` comes from the tile's places.
inline void corners_from_texture(const Texture& texture, Pixel pixel, int64_t c, const int32_t* index, int64_t n,
                                 Tile& t) {
  const uint32_t* const words = texture.words + c * texture.plane;
  gather_words(words, index, n, t.corner[0]);
  if (pixel == Pixel::f32) {
    gather_words(words + 1, index, n, t.corner[1]);
    gather_words(words + texture.stride, index, n, t.corner[2]);
    gather_words(words + texture.stride + 1, index, n, t.corner[3]);
  }
}

inline void corners_from_picture(const Warp& warp, const Picture& picture, const Box& box, int64_t c, int64_t n,
                                 Tile& t) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t x = box.x + t.x[i], y = box.y + t.y[i];
    const char* const at = picture.data + c * picture.channel + y * picture.row + x * picture.column;
    const int64_t right = x + 1 < warp.width ? picture.column : 0, down = y + 1 < warp.height ? picture.row : 0;
    if (warp.pixel == Pixel::u8) {
      t.corner[0][i] = uint32_t{load<uint8_t>(at)} | uint32_t{load<uint8_t>(at + right)} << 8 |
                       uint32_t{load<uint8_t>(at + down)} << 16 | uint32_t{load<uint8_t>(at + right + down)} << 24;
    } else {
      t.corner[0][i] = load<uint32_t>(at);
      t.corner[1][i] = load<uint32_t>(at + right);
      t.corner[2][i] = load<uint32_t>(at + down);
      t.corner[3][i] = load<uint32_t>(at + right + down);
    }
  }
}

}  // namespace
}  // namespace onepass
