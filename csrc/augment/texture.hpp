// A copy of the box of a picture that a band reads, laid out so that few loads give the four pixels around a place.
#pragma once

#include <cstdlib>
#include <cstring>

#include "augment/warp.hpp"

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

// The copy, plane by plane, one column wider than the box: the right neighbour of the last. Bytes are held in pairs, a
// pixel with the one below it, so that the 32 bits at a pair are all four corners. Floats have one more row instead.
struct Texture {
  char* data;
  int64_t stride, plane;  // in pairs or floats
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

// Vectors of the compiler, for rows too short for loops that it vectorises by itself.
constexpr int64_t block = 16;
using Bytes = uint8_t __attribute__((vector_size(block)));
using Pairs = uint16_t __attribute__((vector_size(2 * block)));

template <class Vector, class T>
inline Vector load_block(const T* at) {
  Vector vector;
  std::memcpy(&vector, at, sizeof vector);
  return vector;
}

// Calls whole(i) for blocks [i, i + block) that cover [0, n), the last overlapping the one before, or where n is too
// small for that single(i) for each.
template <class Whole, class Single>
inline void in_blocks(int64_t n, const Whole& whole, const Single& single) {
  if (n < block) {
    for (int64_t i = 0; i < n; ++i) single(i);
  } else {
    for (int64_t i = 0; i + block < n; i += block) whole(i);
    whole(n - block);
  }
}

// out[i] = upper[i] | lower[i] << 8
inline void pair_rows(const uint8_t* upper, const uint8_t* lower, int64_t n, uint16_t* out) {
  in_blocks(
      n,
      [=](int64_t i) {
        const Pairs above = __builtin_convertvector(load_block<Bytes>(upper + i), Pairs);
        const Pairs below = __builtin_convertvector(load_block<Bytes>(lower + i), Pairs);
        const Pairs both = above | below << 8;
        std::memcpy(out + i, &both, sizeof both);
      },
      [=](int64_t i) { out[i] = static_cast<uint16_t>(upper[i] | lower[i] << 8); });
}

// Three byte channels side by side, the usual NHWC, to lines that are `apart`.
inline void read_interleaved(const char* from, int64_t n, int64_t apart, uint8_t* line) {
  const uint8_t* const bytes = reinterpret_cast<const uint8_t*>(from);
  const auto single = [=](int64_t i) {
    for (int64_t c = 0; c < 3; ++c) line[c * apart + i] = bytes[3 * i + c];
  };
#if __has_builtin(__builtin_shufflevector)
  in_blocks(
      n,
      [=](int64_t i) {
        const Bytes a = load_block<Bytes>(bytes + 3 * i), b = load_block<Bytes>(bytes + 3 * i + block);
        const Bytes c = load_block<Bytes>(bytes + 3 * i + 2 * block);
        const Bytes r = __builtin_shufflevector(a, b, 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0);
        const Bytes g = __builtin_shufflevector(a, b, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0);
        const Bytes u = __builtin_shufflevector(a, b, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0);
        const Bytes red = __builtin_shufflevector(r, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29);
        const Bytes green = __builtin_shufflevector(g, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30);
        const Bytes blue = __builtin_shufflevector(u, c, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31);
        std::memcpy(line + i, &red, sizeof red);
        std::memcpy(line + apart + i, &green, sizeof green);
        std::memcpy(line + 2 * apart + i, &blue, sizeof blue);
      },
      single);
#else
  for (int64_t i = 0; i < n; ++i) single(i);
#endif
}

inline void read_line(const char* from, int64_t stride, int64_t n, uint8_t* line) {
  for (int64_t i = 0; i < n; ++i) line[i] = load<uint8_t>(from + i * stride);
}

// Rows of bytes that are brought into lines at a time. More than one, so that what is written has left the store buffer
// when it is read again with another alignment; few, so that it is still in the L1 cache.
constexpr int64_t lines_at_a_time = 16;

inline size_t texture_bytes(const Warp& warp, const Box& box) {
  const int64_t values = (box.width + 1) * (box.height + 1) * warp.channels;
  if (warp.pixel == Pixel::f32) return static_cast<size_t>(4 * values);
  return static_cast<size_t>(2 * values + (lines_at_a_time + 1) * (box.width + 1) * warp.channels);
}

inline Texture pack_bytes(const Warp& warp, const Picture& picture, const Box& box, void* memory) {
  const int64_t channels = warp.channels, stride = box.width + 1, plane = stride * box.height;
  const bool edge = box.x + box.width == warp.width;
  const int64_t available = edge ? box.width : stride;
  const bool direct = picture.column == 1;
  const bool interleaved = channels == 3 && picture.channel == 1 && picture.column == 3;
  uint16_t* const pairs = static_cast<uint16_t*>(memory);
  uint8_t* const lines = static_cast<uint8_t*>(memory) + 2 * plane * channels;
  const auto source = [&](int64_t y, int64_t c) {
    const int64_t row = box.y + y < warp.height ? box.y + y : warp.height - 1;
    return picture.data + row * picture.row + box.x * picture.column + c * picture.channel;
  };
  for (int64_t y0 = 0; y0 < box.height; y0 += lines_at_a_time) {
    const int64_t rows = box.height - y0 < lines_at_a_time ? box.height - y0 : lines_at_a_time;
    const auto line = [&](int64_t y, int64_t c) { return lines + ((y - y0) * channels + c) * stride; };
    for (int64_t y = y0; y <= y0 + rows && !direct; ++y) {
      if (interleaved) {
        read_interleaved(source(y, 0), available, stride, line(y, 0));
      } else {
        for (int64_t c = 0; c < channels; ++c) read_line(source(y, c), picture.column, available, line(y, c));
      }
    }
    for (int64_t y = y0; y < y0 + rows; ++y) {
      for (int64_t c = 0; c < channels; ++c) {
        const auto from = [&](int64_t of) {
          return direct ? reinterpret_cast<const uint8_t*>(source(of, c)) : line(of, c);
        };
        uint16_t* const out = pairs + c * plane + y * stride;
        pair_rows(from(y), from(y + 1), available, out);
        if (edge) out[box.width] = out[box.width - 1];
      }
    }
  }
  return {static_cast<char*>(memory), stride, plane};
}

inline Texture pack_floats(const Warp& warp, const Picture& picture, const Box& box, void* memory) {
  const int64_t stride = box.width + 1, plane = stride * (box.height + 1);
  const bool edge = box.x + box.width == warp.width;
  const int64_t available = edge ? box.width : stride;
  for (int64_t c = 0; c < warp.channels; ++c) {
    for (int64_t y = 0; y <= box.height; ++y) {
      const int64_t row = box.y + y < warp.height ? box.y + y : warp.height - 1;
      const char* const from = picture.data + c * picture.channel + row * picture.row + box.x * picture.column;
      uint32_t* const out = static_cast<uint32_t*>(memory) + c * plane + y * stride;
      if (picture.column == 4) {
        std::memcpy(out, from, static_cast<size_t>(4 * available));
      } else {
        for (int64_t x = 0; x < available; ++x) out[x] = load<uint32_t>(from + x * picture.column);
      }
      if (edge) out[box.width] = out[box.width - 1];
    }
  }
  return {static_cast<char*>(memory), stride, plane};
}

}  // namespace
}  // namespace onepass
