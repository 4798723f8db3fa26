#include "plan/plan.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cpu/parallel.hpp"
#include "cpu/prefetch.hpp"
#include "cpu/tile.hpp"
#include "rules/norm.hpp"
#include "rules/rules.hpp"

namespace onepass {
namespace {

template <template <class> class... Rule>
std::vector<RuleInfo> described(RuleList<Rule...>) {
  std::vector<RuleInfo> all;
  const auto add = [&]<class One>(const One*) {
    static_assert(std::size(One::hypers) <= Group::numbers - Group::hyper);
    RuleInfo info{One::name, One::states, {}, {std::begin(One::hypers), std::end(One::hypers)}};
    for (int k = 0; k < One::states; ++k) {
      info.state.emplace_back(One::state[k].name, static_cast<int>(One::state[k].kind));
    }
    all.push_back(std::move(info));
  };
  (add(static_cast<const Rule<double>*>(nullptr)), ...);
  return all;
}

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

}  // namespace

const std::vector<RuleInfo>& rules() {
  static const std::vector<RuleInfo> list = described(Rules{});
  return list;
}

void Plan::clear() {
  groups_.clear();
  segments_.clear();
  scalars_.clear();
  origins_.clear();
  strided_.clear();
  elements_ = 0;
  in_order_ = false;
}

void Plan::begin_group(const Group& group) {
  groups_.push_back(group);
  group_start_ = scalars_.size();
}

uint32_t Plan::scalars_for(const StepNumber& t, bool new_average) {
  for (size_t i = t.count == nullptr ? scalars_.size() : group_start_; i-- > group_start_;) {
    if (origins_[i].t == t && origins_[i].new_average == new_average) return static_cast<uint32_t>(i);
  }
  origins_.push_back({static_cast<uint32_t>(groups_.size() - 1), t, new_average});
  scalars_.push_back(t.count == nullptr ? scalars_of(groups_.back(), t.known, new_average) : Scalars{});
  return static_cast<uint32_t>(scalars_.size() - 1);
}

void Plan::add(const Operands& operands, const StepNumber& t, bool new_average) {
  Segment segment{};
  segment.count = operands.view[param].count();
  if (segment.count == 0) {
    if (t.count != nullptr) scalars_for(t, new_average);  // its steps are counted all the same
    return;
  }
  for (int k = 0; k < max_operands; ++k) {
    if (!operands.has[k]) continue;
    segment.data[k] = operands.view[k].data;
    segment.dtype[k] = operands.view[k].dtype;
  }
  std::copy(std::begin(operands.scale), std::end(operands.scale), segment.scale);
  segment.rule = static_cast<uint8_t>(groups_.back().rule);
  segment.states = static_cast<uint8_t>(operands.states);
  segment.quantised = operands.quantised;
  segment.scalars = scalars_for(t, new_average);
  // The blocks of 8-bit states follow the memory of the states.
  const int leader = operands.quantised ? first_state : param;
  segment.strided = share_dense_layout(operands, segment.count) ? nullptr : strided_.add(operands, leader);
  segment.start = elements_;
  elements_ += segment.count;
  segments_.push_back(segment);
}

std::vector<Segment>::const_iterator Plan::segment_at(int64_t place) const {
  return std::upper_bound(segments_.begin(), segments_.end(), place,
                          [](int64_t at, const Segment& s) { return at < s.start; }) -
         1;
}

double Plan::square_sum(const Isa& isa) const {
  std::vector<double> sums(static_cast<size_t>((elements_ + norm_block - 1) / norm_block));
  parallel_for(elements_, 8 * norm_block, useful_threads(elements_), [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += norm_block) {
      const int64_t stop = std::min(end, at + norm_block);
      sums[static_cast<size_t>(at / norm_block)] = isa.square_sum(&*segment_at(at), at, stop);
    }
  });
  double lanes[norm_lanes] = {};
  for (size_t i = 0; i < sums.size(); ++i) lanes[i % norm_lanes] += sums[i];
  return fold(lanes);
}

bool Plan::has_finite_gradients() const {
  double values[tile];
  for (const Segment& segment : segments_) {
    for (int64_t at = 0; at < segment.count; at += tile) {
      const int64_t n = std::min(tile, segment.count - at);
      load(segment, grad, at, n, values);
      if (!std::all_of(values, values + n, [](double x) { return std::isfinite(x); })) return false;
    }
  }
  return true;
}

void Plan::scale_gradients(double factor) {
  for (Scalars& scalars : scalars_) scalars.scale *= factor;
}

bool Plan::is_disjoint(uint64_t& disjoint) const {
  uint64_t fingerprint = 1;
  for (const Segment& segment : segments_) {
    const uint64_t place = reinterpret_cast<uintptr_t>(segment.data[param]) + static_cast<uint64_t>(segment.count) * 31;
    fingerprint = (fingerprint ^ place) * 0x9E3779B97F4A7C15u;
  }
  if (fingerprint == disjoint) return true;
  if (has_shared_memory()) return false;
  disjoint = fingerprint;
  return true;
}

void Plan::settle_order(uint64_t& disjoint) { in_order_ = useful_threads(elements_) > 1 && !is_disjoint(disjoint); }

bool Plan::has_shared_memory() const {
  std::vector<std::pair<uintptr_t, uintptr_t>> ranges;  // first byte, byte after the last
  for (const Segment& segment : segments_) {
    int64_t last = segment.count - 1;
    if (segment.strided != nullptr) {
      last = 0;
      for (int d = 0; d < segment.strided->dims; ++d) {
        last += (segment.strided->shape[d] - 1) * segment.strided->stride[param][d];
      }
    }
    const auto first = reinterpret_cast<uintptr_t>(segment.data[param]);
    ranges.emplace_back(first, first + static_cast<uintptr_t>((last + 1) * size_of(segment.dtype[param])));
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) return true;
  }
  return false;
}

// Calls kernel(segment, from, to) for stretches of segments that cover everything, chunk by chunk.
template <class Kernel>
void Plan::each_stretch(const Kernel& kernel) const {
  const int threads = in_order_ ? 1 : useful_threads(elements_);
  const int64_t share = std::max<int64_t>(1, (elements_ + threads - 1) / threads);
  const int64_t chunk = share <= largest_share
                            ? share
                            : std::clamp(share / 8, smallest_chunk, largest_chunk) / smallest_chunk * smallest_chunk;
  parallel_for(elements_, chunk, threads, [&](int64_t begin, int64_t end) {
    for (auto segment = segment_at(begin); segment != segments_.end() && segment->start < end; ++segment) {
      if (segments_.end() - segment > segments_ahead) prefetch(segment[segments_ahead]);
      const int64_t from = std::max<int64_t>(0, begin - segment->start);
      const int64_t to = std::min(segment->count, end - segment->start);
      kernel(*segment, from, to);
    }
  });
}

void Plan::run(const Isa& isa) const {
  each_stretch([&](const Segment& segment, int64_t from, int64_t to) {
    isa.update(segment, scalars_[segment.scalars], from, to);
  });
}

void Plan::stream(const Isa& isa) const {
  each_stretch([&](const Segment& segment, int64_t from, int64_t to) { isa.stream(segment, 0, from, to); });
}

}  // namespace onepass
