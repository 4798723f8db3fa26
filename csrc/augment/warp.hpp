// One call of the augmentation: pictures in, a warp for each, pictures out.
#pragma once

#include <cstdint>

namespace onepass {

// What lies outside a picture, as scipy.ndimage.affine_transform names and defines it.
enum class Fill : uint8_t { nearest, reflect, mirror, wrap, constant };

// How values are stored. `raw` ones are moved as they are, `u8` and `f32` are normalised to float.
enum class Pixel : uint8_t { u8, f32, raw8, raw16, raw32, raw64 };

// Normalisation of one channel. Interpolated values become value * scale + shift; values that are only moved go the way
// of the formula itself, (value - mean) / std, or for bytes through a table of it.
struct Channel {
  float scale, shift;
  float mean, std;
  float outside;     // with Fill::constant, normalised
  float table[256];  // (byte / 255 - mean) / std
};

struct Warp {
  const char* images;
  Pixel pixel;
  int64_t channels, height, width;
  int64_t image_stride, channel_stride, row_stride, column_stride;  // bytes; any sign and alignment
  const int64_t* rows;  // which image each matrix is for; null: its own number

  const double* matrices;  // 2x3 each, output (x, y) to input (x, y), pixel centres at integers
  Fill fill;
  bool bilinear;           // else nearest
  const Channel* channel;  // u8 and f32
  uint64_t outside;        // raw, with Fill::constant

  char* out;  // contiguous NCHW: float, or raw
  int64_t out_height, out_width;
  int64_t bands, band_height;  // rows of the output are cut so that what a band reads stays in the cache
};

struct Isa;

// Warps `count` pictures; bands are set here.
void warp_all(const Isa& isa, Warp warp, int64_t count);

}  // namespace onepass
