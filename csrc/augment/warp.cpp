#include "augment/warp.hpp"

#include <algorithm>

#include "cpu/dispatch.hpp"
#include "cpu/parallel.hpp"

namespace onepass {

void warp_all(const Isa& isa, Warp warp, int64_t count) {
  // A band's copy of its input, one word per pixel and channel, should fit the L2 cache.
  constexpr int64_t band_pixels = 65536;
  // Values below which starting threads costs more than they save: some 20 microseconds of work.
  constexpr int64_t piece_values = 16384;
  const int64_t rows = std::max<int64_t>(1, band_pixels / warp.out_width);
  warp.bands = (warp.out_height + rows - 1) / rows;
  warp.band_height = (warp.out_height + warp.bands - 1) / warp.bands;
  const int64_t values = warp.channels * warp.out_width * warp.band_height;
  const int64_t grain = std::max<int64_t>(1, piece_values / values);
  const auto kernel = isa.gather;
  parallel_for(count * warp.bands, grain, available_threads(),
               [&](int64_t begin, int64_t end) { kernel(warp, begin, end); });
}

}  // namespace onepass
