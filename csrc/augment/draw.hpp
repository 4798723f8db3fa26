// Random warps: the 2x3 matrix that augments one sample of one epoch.
#pragma once

#include <cstdint>

namespace onepass {

// What to draw from; angles in degrees, shifts as fractions of the output size.
struct Recipe {
  double rotation, shear;         // uniform in [-r, r]
  double shift_x, shift_y;        // uniform in [-s, s]
  double zoom_low, zoom_high;     // per axis
  bool flip_x, flip_y;            // with probability 1/2
  int64_t padding;                // around the picture, before the window is placed
  int64_t out_height, out_width;  // of the window
  uint64_t seed;
};

// Draws one matrix for each of `n` samples of pictures of height x width: out[6 * k] maps output (x, y) to input (x,
// y). A matrix depends on (seed, epoch, index[k]) alone, and is the same on every platform.
void sample(const Recipe& recipe, int64_t height, int64_t width, const int64_t* index, int64_t n, uint32_t epoch,
            double* out);

// Largest singular value of any of `n` matrices: how far the pixels that a warp reads lie apart. NaN or infinity if an
// entry is.
double largest_stretch(const double* matrices, int64_t n);

}  // namespace onepass
