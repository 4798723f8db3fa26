// Where the pixels of an output row lie in the picture: the matrix, then the fill mode for places outside.
//
// Coordinates are double and summed in the order in which scipy sums them, so that both agree on every tie and edge.
#pragma once

#include <type_traits>

#include "augment/warp.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr int64_t tile = 512;  // output pixels; the arrays below take 20 KiB of the L1 cache
constexpr int64_t surplus =
    16;  // rows are rounded up to whole vectors: what they write too much is overwritten or unused

struct Tile {
  alignas(64) int32_t x[tile + surplus], y[tile + surplus];  // left and upper neighbour, from the corner of the box
  alignas(64) float fx[tile + surplus], fy[tile + surplus];  // in [0, 1): the way to the right and lower neighbour
  alignas(64) uint32_t inside[tile + surplus];               // Fill::constant only
  alignas(64) uint32_t corner[4][tile];
};

// One axis of the part of a picture that may be read: pixels low to high of 0 to last.
struct Axis {
  double last, low, high;
};

struct Place {
  const double* matrix;
  int64_t width;  // of the output
  Axis x, y;
};

// True if `fold` may take places between a and b to need one reflection or turn at most.
template <Fill F>
inline bool folds_once(double a, double b, double last) {
  const double low = a < b ? a : b, high = a < b ? b : a;
  if constexpr (F == Fill::reflect) return low > -2 * last - 3 && high < 2 * last + 2;
  if constexpr (F == Fill::mirror) return low > -2 * last && high < 2 * last;
  if constexpr (F == Fill::wrap) return low > -last && high < 2 * last;
  return true;
}

// A place anywhere to one in the picture, give or take what `clamp` repairs: reflect leaves up to 1 outside, and
// rounding a little. `Once` promises folds_once; both give the same there, bit by bit.
template <Fill F, bool Bilinear, bool Once>
inline double fold(double x, double last) {
  if constexpr (F == Fill::reflect) {  // d c b a | a b c d | d c b a
    const double period = 2 * last + 2;
    double a = x < 0 ? -1 - x : x;
    if constexpr (!Once) a -= period * __builtin_floor(a / period);
    return a > last ? period - 1 - a : a;
  } else if constexpr (F == Fill::mirror) {  // d c b | a b c d | c b a
    const double period = last > 0 ? 2 * last : 1;
    double a = x < 0 ? -x : x;
    if constexpr (!Once) a -= period * __builtin_floor(a / period);
    // scipy takes the nearest pixel before it reflects the half pixel beyond the last.
    if constexpr (!Bilinear) a = x > 0 && a == last + 0.5 ? a + 0.5 : a;
    return a > last ? period - a : a;
  } else if constexpr (F == Fill::wrap) {  // b c d | a b c d | b c d: the ends are one point
    const double period = last > 0 ? last : 1;
    const double below = Once ? 1 : __builtin_floor(-x / period) + 1;
    const double above = Once ? 1 : __builtin_floor(x / period);
    return x < 0 ? x + period * below : x > last ? x - period * above : x;
  } else {
    return x;
  }
}

// NaN becomes `low`.
inline double clamp(double x, const Axis& axis) {
  const double at_least = x > axis.low ? x : axis.low;
  return at_least < axis.high ? at_least : axis.high;
}

// Pixels x0 to x0 + n of one row, which starts at (base_x, base_y), to the tile's entries from `at` on.
// `Narrow` splits places into pixel and fraction in float, which takes half the instructions: it wants boxes of at most
// `narrow` pixels a side, where that errs by less than 1e-5 pixels.
constexpr double narrow = 256;

template <Fill F, bool Bilinear, bool Once, bool Narrow>
inline void place_row(const Place& place, double base_x, double base_y, int64_t x0, int64_t at, int64_t n, Tile& t) {
  const double step_x = place.matrix[0], step_y = place.matrix[3];
  const Axis ax = place.x, ay = place.y;
  const int32_t first = static_cast<int32_t>(x0), padded = static_cast<int32_t>((n + surplus - 1) & -surplus);
  int32_t* __restrict const tx = t.x + at;
  int32_t* __restrict const ty = t.y + at;
  float* __restrict const fx = t.fx + at;
  float* __restrict const fy = t.fy + at;
  uint32_t* __restrict const inside = t.inside + at;
  for (int32_t i = 0; i < padded; ++i) {
    const double column = static_cast<double>(first + i);
    const double x = base_x + step_x * column, y = base_y + step_y * column;
    const double in_x = clamp(fold<F, Bilinear, Once>(x, ax.last), ax) - ax.low;
    const double in_y = clamp(fold<F, Bilinear, Once>(y, ay.last), ay) - ay.low;
    if constexpr (!Bilinear) {
      tx[i] = static_cast<int32_t>(in_x + 0.5);
      ty[i] = static_cast<int32_t>(in_y + 0.5);
    } else {
      using Real = std::conditional_t<Narrow, float, double>;
      const Real real_x = static_cast<Real>(in_x), real_y = static_cast<Real>(in_y);
      const int32_t column_in = static_cast<int32_t>(real_x), row_in = static_cast<int32_t>(real_y);
      tx[i] = column_in;
      ty[i] = row_in;
      fx[i] = static_cast<float>(real_x - static_cast<Real>(column_in));
      fy[i] = static_cast<float>(real_y - static_cast<Real>(row_in));
    }
    if constexpr (F == Fill::constant) {
      inside[i] = (x >= 0) & (x <= ax.last) & (y >= 0) & (y <= ay.last);
    }
  }
}

// Output pixels `begin` to `begin + n` of the picture, counted row by row.
template <Fill F, bool Bilinear, bool Narrow>
inline void place_tile(const Place& place, int64_t begin, int64_t n, Tile& t) {
  const double* const m = place.matrix;
  int64_t y = begin / place.width, x = begin % place.width;
  for (int64_t done = 0; done < n; ++y, x = 0) {
    const int64_t left = place.width - x, length = left < n - done ? left : n - done;
    const double base_x = m[2] + m[1] * static_cast<double>(y), base_y = m[5] + m[4] * static_cast<double>(y);
    const double a = static_cast<double>(x), b = static_cast<double>(x + length - 1);
    if (folds_once<F>(base_x + m[0] * a, base_x + m[0] * b, place.x.last) &&
        folds_once<F>(base_y + m[3] * a, base_y + m[3] * b, place.y.last)) {
      place_row<F, Bilinear, true, Narrow>(place, base_x, base_y, x, done, length, t);
    } else {
      place_row<F, Bilinear, false, Narrow>(place, base_x, base_y, x, done, length, t);
    }
    done += length;
  }
}

template <Fill F, bool Bilinear>
void place_tile(const Place& place, int64_t begin, int64_t n, Tile& t) {
  if (Bilinear && place.x.high - place.x.low <= narrow && place.y.high - place.y.low <= narrow) {
    place_tile<F, Bilinear, true>(place, begin, n, t);
  } else {
    place_tile<F, Bilinear, false>(place, begin, n, t);
  }
}

using PlaceTile = void (*)(const Place&, int64_t, int64_t, Tile&);

// Indexed by Fill.
constexpr PlaceTile place_bilinear[] = {place_tile<Fill::nearest, true>, place_tile<Fill::reflect, true>,
                                        place_tile<Fill::mirror, true>, place_tile<Fill::wrap, true>,
                                        place_tile<Fill::constant, true>};
constexpr PlaceTile place_nearest[] = {place_tile<Fill::nearest, false>, place_tile<Fill::reflect, false>,
                                       place_tile<Fill::mirror, false>, place_tile<Fill::wrap, false>,
                                       place_tile<Fill::constant, false>};

}  // namespace
}  // namespace onepass
