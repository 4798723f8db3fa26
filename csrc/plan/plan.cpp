#include "plan/plan.hpp"

#include <algorithm>

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
}

void Plan::begin_group(const Group& group) {
  groups_.push_back(group);
  group_start_ = scalars_.size();
}

uint32_t Plan::scalars_for(const StepNumber& t, bool new_ema) {
  for (size_t i = t.count == nullptr ? scalars_.size() : group_start_; i-- > group_start_;) {
    if (origins_[i].t == t && origins_[i].new_ema == new_ema) return static_cast<uint32_t>(i);
  }
  origins_.push_back({static_cast<uint32_t>(groups_.size() - 1), t, new_ema});
  scalars_.push_back(t.count == nullptr ? scalars_of(groups_.back(), t.known, new_ema) : Scalars{});
  return static_cast<uint32_t>(scalars_.size() - 1);
}

void Plan::add(const Operands& operands, const StepNumber& t, bool new_ema) {
  const int64_t count = operands.view[param].count();
  if (count == 0) {
    if (t.count != nullptr) scalars_for(t, new_ema);  // its steps are counted all the same
    return;
  }
  Segment& segment = segments_.emplace_back();
  segment.count = count;
  for (int k = 0; k < max_operands; ++k) {
    if (!operands.has[k]) continue;
    segment.data[k] = operands.view[k].data;
    segment.dtype[k] = operands.view[k].dtype;
  }
  std::copy(std::begin(operands.scale), std::end(operands.scale), segment.scale);
  segment.rule = static_cast<uint8_t>(groups_.back().rule);
  segment.states = static_cast<uint8_t>(operands.states);
  segment.quantized = operands.quantized;
  segment.scalars = scalars_for(t, new_ema);
  // The blocks of 8-bit states follow the memory of the states.
  const int leader = operands.quantized ? first_state : param;
  const bool is_flat = count == 1 || (operands.same_strides && onepass::is_dense(operands.view[param]));
  segment.strided = is_flat ? nullptr : strided_.add(operands, leader);
  segment.start = elements_;
  elements_ += count;
}

std::vector<Segment>::const_iterator Plan::segment_at(int64_t place) const {
  return std::upper_bound(segments_.begin(), segments_.end(), place,
                          [](int64_t at, const Segment& s) { return at < s.start; }) -
         1;
}

void Plan::scale_gradients(double factor) {
  for (Scalars& scalars : scalars_) scalars.scale *= factor;
}

void Plan::find_written(std::vector<Range>& out) const {
  out.clear();
  for (const Segment& segment : segments_) {
    for (int k = 0; k < max_operands; ++k) {
      if (k == grad || k == anchor || !segment.has(k)) continue;
      int64_t last = segment.count - 1;
      if (segment.strided != nullptr) {
        last = 0;
        for (int d = 0; d < segment.strided->dims; ++d) {
          last += (segment.strided->shape[d] - 1) * segment.strided->stride[k][d];
        }
      }
      const auto first = reinterpret_cast<uintptr_t>(segment.data[k]);
      out.push_back({first, first + static_cast<uintptr_t>((last + 1) * size_of(segment.dtype[k]))});
    }
  }
}

bool Plan::is_disjoint(std::vector<Range>& known) const {
  thread_local std::vector<Range> written;
  find_written(written);
  if (written == known) return true;
  std::vector<Range> sorted = written;
  std::sort(sorted.begin(), sorted.end(), [](const Range& a, const Range& b) { return a.first < b.first; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].first < sorted[i - 1].end) return false;
  }
  known = written;
  return true;
}

}  // namespace onepass
