// Warps pictures: each output pixel is interpolated from the input at the place that the matrix gives, and normalised.
#pragma once

#include "augment/corners.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

inline float lerp(float a, float b, float t) { return a + t * (b - a); }

inline void blend_bytes(const Tile& t, int64_t n, const Channel& channel, float* __restrict out) {
  const float scale = channel.scale, shift = channel.shift;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t word = static_cast<int32_t>(t.corner[0][i]);
    const float a = static_cast<float>(word & 255), c = static_cast<float>(word >> 8 & 255);
    const float b = static_cast<float>(word >> 16 & 255), d = static_cast<float>(word >> 24 & 255);
    out[i] = lerp(lerp(a, b, t.fx[i]), lerp(c, d, t.fx[i]), t.fy[i]) * scale + shift;
  }
}

inline void blend_floats(const Tile& t, int64_t n, const Channel& channel, float* __restrict out) {
  const float scale = channel.scale, shift = channel.shift;
  for (int64_t i = 0; i < n; ++i) {
    const float a = __builtin_bit_cast(float, t.corner[0][i]), c = __builtin_bit_cast(float, t.corner[1][i]);
    const float b = __builtin_bit_cast(float, t.corner[2][i]), d = __builtin_bit_cast(float, t.corner[3][i]);
    out[i] = lerp(lerp(a, b, t.fx[i]), lerp(c, d, t.fx[i]), t.fy[i]) * scale + shift;
  }
}

template <class T>
inline void fill_outside(const Tile& t, int64_t n, T outside, T* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = t.inside[i] != 0 ? out[i] : outside;
}

// The part of one axis that output pixels at places from a to b reach, for bilinear interpolation: low and high are
// whole, and every place between them is at most high.
inline Axis reach(Fill fill, double a, double b, double last) {
  const double low = a < b ? a : b, high = a < b ? b : a;
  Axis axis = {last, 0, last};
  const bool outside = !(low >= 0 && high <= last);  // or NaN
  if (outside && fill == Fill::wrap) return axis;
  if (outside && !(low > -last && high < 2 * last)) return axis;
  axis.low = low > 0 ? __builtin_floor(low) : 0;
  axis.high = high < last ? __builtin_floor(high) + 1 : last;
  if (fill == Fill::reflect || fill == Fill::mirror) {  // what lies outside is read from the inside of the edge
    const double back = __builtin_floor(-low) + 1, front = __builtin_floor(2 * last - high) - 1;
    if (low < 0 && back > axis.high) axis.high = back;
    if (high > last && front < axis.low) axis.low = front;
  }
  if (axis.low < 0) axis.low = 0;
  if (axis.low > last) axis.low = last;
  if (axis.high > last) axis.high = last;
  if (axis.high < axis.low) axis.high = axis.low;
  return axis;
}

// Rows y0 to y1 of one output picture.
struct Band {
  const double* matrix;
  Picture picture;
  char* out;
  int64_t y0, y1;
};

inline void warp_bilinear(const Warp& warp, const Band& band, Scratch& scratch, Tile& t) {
  const double* const m = band.matrix;
  const double x1 = static_cast<double>(warp.out_width - 1);
  const double y0 = static_cast<double>(band.y0), y1 = static_cast<double>(band.y1 - 1);
  double low[2], high[2];
  for (int axis = 0; axis < 2; ++axis) {  // rounding is monotonic, so that no place lies beyond those of the corners
    const double* const row = m + 3 * axis;
    const double top = row[2] + row[1] * y0, bottom = row[2] + row[1] * y1;
    low[axis] = (top < bottom ? top : bottom) + (row[0] < 0 ? row[0] * x1 : 0);
    high[axis] = (top < bottom ? bottom : top) + (row[0] < 0 ? 0 : row[0] * x1);
  }
  const Place place = {m, warp.out_width, reach(warp.fill, low[0], high[0], static_cast<double>(warp.width - 1)),
                       reach(warp.fill, low[1], high[1], static_cast<double>(warp.height - 1))};
  const Box box = {static_cast<int64_t>(place.x.low), static_cast<int64_t>(place.y.low),
                   static_cast<int64_t>(place.x.high - place.x.low) + 1,
                   static_cast<int64_t>(place.y.high - place.y.low) + 1};

  // Copying a pixel costs about a quarter of interpolating one; the second limit keeps indices within 32 bits.
  const int64_t pixels = (band.y1 - band.y0) * warp.out_width;
  const bool worthwhile = box.width <= 8 * pixels + 64 && box.height <= 8 * pixels + 64 &&
                          box.width * box.height <= 4 * pixels + 256 && box.width * box.height < int64_t{1} << 24;
  void* const memory = worthwhile ? scratch.at_least(texture_bytes(warp, box)) : nullptr;
  Texture texture = {};
  if (memory != nullptr) {
    texture = warp.pixel == Pixel::u8 ? pack_bytes(warp, band.picture, box, memory)
                                      : pack_floats(warp, band.picture, box, memory);
  }

  const int64_t begin = band.y0 * warp.out_width, end = band.y1 * warp.out_width;
  for (int64_t at = begin; at < end; at += tile) {
    const int64_t n = end - at < tile ? end - at : tile;
    place_bilinear[static_cast<int>(warp.fill)](place, at, n, t);
    if (memory != nullptr) {
      const int32_t stride = static_cast<int32_t>(texture.stride);
      for (int64_t i = 0; i < n; ++i) t.x[i] += t.y[i] * stride;
    }
    for (int64_t c = 0; c < warp.channels; ++c) {
      const Channel& channel = warp.channel[c];
      float* const out = reinterpret_cast<float*>(band.out) + c * warp.out_height * warp.out_width + at;
      if (memory != nullptr) {
        corners_from_texture(texture, warp.pixel, c, t.x, n, t);
      } else {
        corners_from_picture(warp, band.picture, box, c, n, t);
      }
      warp.pixel == Pixel::u8 ? blend_bytes(t, n, channel, out) : blend_floats(t, n, channel, out);
      if (warp.fill == Fill::constant) fill_outside(t, n, channel.outside, out);
    }
  }
}

// How a value is moved: read as From, written as To.
template <class T>
struct Moved {
  using From = T;
  using To = T;
  static T outside(const Warp& warp, int64_t) { return static_cast<T>(warp.outside); }
  static T move(T value, const Warp&, int64_t) { return value; }
};
struct Byte {
  using From = uint8_t;
  using To = float;
  static float outside(const Warp& warp, int64_t c) { return warp.channel[c].outside; }
  static float move(uint8_t value, const Warp& warp, int64_t c) { return warp.channel[c].table[value]; }
};
struct Float {
  using From = float;
  using To = float;
  static float outside(const Warp& warp, int64_t c) { return warp.channel[c].outside; }
  static float move(float value, const Warp& warp, int64_t c) {
    return (value - warp.channel[c].mean) / warp.channel[c].std;
  }
};

template <class Value>
void warp_nearest(const Warp& warp, const Band& band, Tile& t) {
  using To = typename Value::To;
  const double last_x = static_cast<double>(warp.width - 1), last_y = static_cast<double>(warp.height - 1);
  const Place place = {band.matrix, warp.out_width, {last_x, 0, last_x}, {last_y, 0, last_y}};
  const int64_t begin = band.y0 * warp.out_width, end = band.y1 * warp.out_width;
  for (int64_t at = begin; at < end; at += tile) {
    const int64_t n = end - at < tile ? end - at : tile;
    place_nearest[static_cast<int>(warp.fill)](place, at, n, t);
    for (int64_t c = 0; c < warp.channels; ++c) {
      const char* const from = band.picture.data + c * band.picture.channel;
      To* __restrict const out = reinterpret_cast<To*>(band.out) + c * warp.out_height * warp.out_width + at;
      for (int64_t i = 0; i < n; ++i) {
        const char* const pixel = from + t.y[i] * band.picture.row + t.x[i] * band.picture.column;
        out[i] = Value::move(load<typename Value::From>(pixel), warp, c);
      }
      if (warp.fill == Fill::constant) fill_outside(t, n, Value::outside(warp, c), out);
    }
  }
}

// A shift, flip or quarter turn by whole pixels: interpolation would give the pixels themselves.
inline bool only_moves(const double* m) {
  for (int i = 0; i < 6; ++i) {
    if (!(__builtin_fabs(m[i]) < 0x1p31) || __builtin_floor(m[i]) != m[i]) return false;
  }
  return true;
}

// Items [begin, end) of the call: bands of pictures.
inline void gather(const Warp& warp, int64_t begin, int64_t end) {
  static constexpr void (*nearest[])(const Warp&, const Band&, Tile&) = {warp_nearest<Byte>,
                                                                         warp_nearest<Float>,
                                                                         warp_nearest<Moved<uint8_t>>,
                                                                         warp_nearest<Moved<uint16_t>>,
                                                                         warp_nearest<Moved<uint32_t>>,
                                                                         warp_nearest<Moved<uint64_t>>};
  static constexpr int64_t size[] = {4, 4, 1, 2, 4, 8};
  const int64_t picture_size = warp.channels * warp.out_height * warp.out_width * size[static_cast<int>(warp.pixel)];
  Scratch scratch;
  Tile t;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t k = item / warp.bands, y0 = item % warp.bands * warp.band_height;
    const int64_t y1 = y0 + warp.band_height < warp.out_height ? y0 + warp.band_height : warp.out_height;
    const int64_t image = warp.rows == nullptr ? k : warp.rows[k];
    const Band band = {
        warp.matrices + 6 * k,
        {warp.images + image * warp.image_stride, warp.channel_stride, warp.row_stride, warp.column_stride},
        warp.out + k * picture_size,
        y0,
        y1};
    if (warp.bilinear && !only_moves(band.matrix)) {
      warp_bilinear(warp, band, scratch, t);
    } else {
      nearest[static_cast<int>(warp.pixel)](warp, band, t);
    }
  }
}

}  // namespace
}  // namespace onepass
