#include "augment/draw.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "rules/philox.hpp"

namespace onepass {
namespace {

// One block per slot. A slot keeps its number for ever, so that turning an option on changes no other draw.
enum Slot : uint32_t { rotation_and_shear, shift, zoom, flip, window };

struct Pair {
  double first, second;
};

Pair draw(const Recipe& recipe, int64_t index, uint32_t epoch, Slot slot) {
  const uint64_t sample = static_cast<uint64_t>(index);
  const Block counter = {{static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32), epoch, slot}};
  const Block b = philox(counter, static_cast<uint32_t>(recipe.seed), static_cast<uint32_t>(recipe.seed >> 32));
  return {uniform(b.word[0], b.word[1]), uniform(b.word[2], b.word[3])};
}

// The values of series of x * x from the given coefficient on, by Horner's rule.
template <int N>
double horner(double square, const double (&coefficient)[N]) {
  double sum = coefficient[N - 1];
  for (int i = N - 2; i >= 0; --i) sum = sum * square + coefficient[i];
  return sum;
}

struct Angle {
  double sine, cosine;
};

// Taylor series after exact reduction to [-45, 45] degrees, good to the last bit or two. Not libm's functions: their
// last bits differ between platforms and even between processors.
Angle degrees(double angle) {
  constexpr double sine[] = {1.0,
                             -1.0 / 6,
                             1.0 / 120,
                             -1.0 / 5040,
                             1.0 / 362880,
                             -1.0 / 39916800,
                             1.0 / 6227020800,
                             -1.0 / 1307674368000,
                             1.0 / 355687428096000};
  constexpr double cosine[] = {1.0,
                               -1.0 / 2,
                               1.0 / 24,
                               -1.0 / 720,
                               1.0 / 40320,
                               -1.0 / 3628800,
                               1.0 / 479001600,
                               -1.0 / 87178291200,
                               1.0 / 20922789888000};
  const double quarter = std::floor(angle / 90 + 0.5);
  const double x = (angle - 90 * quarter) * (3.14159265358979323846 / 180);
  const double s = x * horner(x * x, sine), c = horner(x * x, cosine);
  switch (static_cast<int>(quarter) & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

// Uniform over first, first + 1, ..., last.
double whole(double u, int64_t first, int64_t last) {
  const double span = static_cast<double>(last - first);
  return static_cast<double>(first) + std::min(std::floor(u * (span + 1)), span);
}

// The window is placed in the padded picture; about its own centre, the output is flipped, zoomed, sheared, shifted and
// rotated to find what it shows: x_in = place + centre + R (S Z F (x_out - centre) + t).
void compose(const Recipe& recipe, int64_t height, int64_t width, int64_t index, uint32_t epoch, double* m) {
  const Pair turn = draw(recipe, index, epoch, rotation_and_shear);
  const Pair move = draw(recipe, index, epoch, shift);
  const Pair scale = draw(recipe, index, epoch, zoom);
  const Pair mirrored = draw(recipe, index, epoch, flip);
  const Pair place = draw(recipe, index, epoch, window);

  const Angle r = degrees(recipe.rotation * (2 * turn.first - 1));
  const Angle s = degrees(recipe.shear * (2 * turn.second - 1));
  const double range = recipe.zoom_high - recipe.zoom_low;
  const double zoom_x = (recipe.zoom_low + range * scale.first) * (recipe.flip_x && mirrored.first < 0.5 ? -1 : 1);
  const double zoom_y = (recipe.zoom_low + range * scale.second) * (recipe.flip_y && mirrored.second < 0.5 ? -1 : 1);

  m[0] = r.cosine * zoom_x;
  m[1] = (-r.cosine * s.sine - r.sine * s.cosine) * zoom_y;
  m[3] = r.sine * zoom_x;
  m[4] = (r.cosine * s.cosine - r.sine * s.sine) * zoom_y;

  const double w = static_cast<double>(recipe.out_width), h = static_cast<double>(recipe.out_height);
  const double shift_x = recipe.shift_x * (2 * move.first - 1) * w;
  const double shift_y = recipe.shift_y * (2 * move.second - 1) * h;
  const double x = whole(place.first, -recipe.padding, width + recipe.padding - recipe.out_width);
  const double y = whole(place.second, -recipe.padding, height + recipe.padding - recipe.out_height);
  const double cx = (w - 1) / 2, cy = (h - 1) / 2;
  m[2] = (cx - (m[0] * cx + m[1] * cy)) + (r.cosine * shift_x - r.sine * shift_y) + x;
  m[5] = (cy - (m[3] * cx + m[4] * cy)) + (r.sine * shift_x + r.cosine * shift_y) + y;
}

}  // namespace

void sample(const Recipe& recipe, int64_t height, int64_t width, const int64_t* index, int64_t n, uint32_t epoch,
            double* out) {
  for (int64_t k = 0; k < n; ++k) compose(recipe, height, width, index[k], epoch, out + 6 * k);
}

double largest_stretch(const double* matrices, int64_t n) {
  double largest = 0;
  for (int64_t k = 0; k < n; ++k) {
    const double* const m = matrices + 6 * k;
    if (!std::isfinite(m[2]) || !std::isfinite(m[5])) return std::numeric_limits<double>::infinity();
    // Of the closed forms for 2x2 matrices the one that does not cancel.
    const double stretch = std::hypot(m[0] + m[4], m[3] - m[1]) / 2 + std::hypot(m[0] - m[4], m[3] + m[1]) / 2;
    if (!(stretch <= largest)) largest = stretch;
    if (std::isnan(stretch)) return stretch;
  }
  return largest;
}

}  // namespace onepass
