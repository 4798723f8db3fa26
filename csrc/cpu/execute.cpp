#include "cpu/execute.hpp"

#include <algorithm>
#include <cmath>

#include "cpu/parallel.hpp"
#include "cpu/prefetch.hpp"
#include "cpu/tile.hpp"
#include "rules/norm.hpp"

namespace onepass {
namespace {

// Below this many elements per thread, waking a thread costs more than it saves.
constexpr int64_t elements_per_thread = 32768;
// Long enough for the hardware's prefetchers; each thread has several, to balance.
constexpr int64_t largest_chunk = 1 << 22, smallest_chunk = 4096;
// Up to here a thread's share of a step stays in its core's cache: it gets the same one in every step.
constexpr int64_t largest_share = 262144;

int useful_threads(int64_t elements) {
  return static_cast<int>(std::min<int64_t>(available_threads(), std::max<int64_t>(1, elements / elements_per_thread)));
}

// A small tensor is done before the hardware sees where the next one lies.
constexpr int segments_ahead = 4;
void prefetch(const Segment& segment) {
  constexpr int64_t most = 512;  // bytes; the hardware takes over from there
  const int64_t bytes = std::min(most, segment.count * 4);
  for (int k = 0; k < first_state + segment.states; ++k) {
    for (int64_t at = 0; at < bytes; at += line) prefetch(static_cast<const char*>(segment.data[k]) + at);
  }
}

// Calls kernel(segment, from, to) for blocks of segments that cover everything, chunk by chunk.
template <class Kernel>
void each_block(const Plan& plan, int threads, const Kernel& kernel) {
  const int64_t elements = plan.elements();
  const int64_t share = std::max<int64_t>(1, (elements + threads - 1) / threads);
  const int64_t chunk = share <= largest_share
                            ? share
                            : std::clamp(share / 8, smallest_chunk, largest_chunk) / smallest_chunk * smallest_chunk;
  const auto last = plan.segments().end();
  parallel_for(elements, chunk, threads, [&](int64_t begin, int64_t end) {
    for (auto segment = plan.segment_at(begin); segment != last && segment->start < end; ++segment) {
      if (last - segment > segments_ahead) prefetch(segment[segments_ahead]);
      const int64_t from = std::max<int64_t>(0, begin - segment->start);
      const int64_t to = std::min(segment->count, end - segment->start);
      kernel(*segment, from, to);
    }
  });
}

}  // namespace

double square_sum(const Plan& plan, const Isa& isa) {
  const int64_t elements = plan.elements();
  std::vector<double> sums(static_cast<size_t>((elements + norm_block - 1) / norm_block));
  parallel_for(elements, 8 * norm_block, useful_threads(elements), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += norm_block) {
      const int64_t stop = std::min(end, at + norm_block);
      sums[static_cast<size_t>(at / norm_block)] = isa.square_sum(&*plan.segment_at(at), at, stop);
    }
  });
  double lanes[norm_lanes] = {};
  for (size_t i = 0; i < sums.size(); ++i) lanes[i % norm_lanes] += sums[i];
  return fold(lanes);
}

bool has_finite_gradients(const Plan& plan) {
  double values[tile];
  for (const Segment& segment : plan.segments()) {
    for (int64_t at = 0; at < segment.count; at += tile) {
      const int64_t n = std::min(tile, segment.count - at);
      load(segment, grad, at, n, values);
      if (!std::all_of(values, values + n, [](double x) { return std::isfinite(x); })) return false;
    }
  }
  return true;
}

bool uses_threads(const Plan& plan) { return useful_threads(plan.elements()) > 1; }

void update(const Plan& plan, const Isa& isa, bool in_order) {
  each_block(plan, in_order ? 1 : useful_threads(plan.elements()),
             [&](const Segment& segment, int64_t from, int64_t to) {
               isa.update(segment, plan.scalars()[segment.scalars], from, to);
             });
}

void stream(const Plan& plan, const Isa& isa) {
  each_block(plan, useful_threads(plan.elements()),
             [&](const Segment& segment, int64_t from, int64_t to) { isa.stream(segment, 0, from, to); });
}

}  // namespace onepass
