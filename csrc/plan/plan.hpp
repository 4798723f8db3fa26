// The work list of one step: every tensor of every group as one flat range of elements.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "plan/layout.hpp"
#include "rules/scalars.hpp"
#include "rules/segment.hpp"

namespace onepass {

// The number of a tensor's step, from 1: known, or one more than what device memory holds.
struct StepNumber {
  double known = 0;
  void* count = nullptr;  // of steps done, on the device
  bool is_double = false;

  StepNumber(double t) : known(t) {}
  StepNumber(void* on_device, bool two_words) : count(on_device), is_double(two_words) {}
  bool operator==(const StepNumber& other) const {
    return known == other.known && count == nullptr && other.count == nullptr;
  }
};

// Addresses from `first` on, up to `end`.
struct Range {
  uintptr_t first, end;
  bool operator==(const Range&) const = default;
};

class Plan {
 public:
  void clear();

  // Starts a group; the tensors that are added next belong to it.
  void begin_group(const Group& group);

  // One tensor; a new average starts as a copy of the parameter.
  void add(const Operands& operands, const StepNumber& t, bool new_ema);

  // Multiplies all gradients on their way to the rules.
  void scale_gradients(double factor);

  // Nothing that is written to overlaps. `known` remembers the memory of a plan of which that is so.
  bool is_disjoint(std::vector<Range>& known) const;

  // The segment of an element of the flat range.
  std::vector<Segment>::const_iterator segment_at(int64_t place) const;

  // Where the scalars of some tensors come from: they are a function of these.
  struct Origin {
    uint32_t group;
    StepNumber t;
    bool new_ema;
  };

  const std::vector<Segment>& segments() const { return segments_; }
  const std::vector<Group>& groups() const { return groups_; }
  const std::vector<Origin>& origins() const { return origins_; }   // one for each of scalars()
  const std::vector<Scalars>& scalars() const { return scalars_; }  // of no meaning where the step is not known
  int64_t elements() const { return elements_; }
  bool is_dense() const { return strided_.empty(); }

 private:
  uint32_t scalars_for(const StepNumber& t, bool new_ema);
  void find_written(std::vector<Range>& out) const;

  std::vector<Group> groups_;
  std::vector<Segment> segments_;
  std::vector<Scalars> scalars_;
  std::vector<Origin> origins_;
  size_t group_start_ = 0;  // index of the group's first entry there
  StridedStore strided_;
  int64_t elements_ = 0;
};

// What a rule says of itself, in the order of their numbers.
struct RuleInfo {
  const char* name;
  int states;
  std::vector<std::pair<const char*, int>> state;  // names and StateKind
  std::vector<const char*> hypers;                 // names, the learning rate first
};
const std::vector<RuleInfo>& rules();

}  // namespace onepass
