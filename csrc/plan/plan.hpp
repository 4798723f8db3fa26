// The work list of one step: every tensor of every group as one flat range of elements.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "cpu/dispatch.hpp"
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

class Plan {
 public:
  void clear();

  // Starts a group; the tensors that are added next belong to it.
  void begin_group(const Group& group);

  // One tensor; a new average starts as a copy of the parameter.
  void add(const Operands& operands, const StepNumber& t, bool new_average);

  // Sum of the squares of all gradients as they are in memory, in one parallel region.
  double square_sum(const Isa& isa) const;

  // No infinity and no NaN among the gradients. Slow: for the rare doubt.
  bool has_finite_gradients() const;

  // Multiplies all gradients on their way to the rules.
  void scale_gradients(double factor);

  // No parameters share memory. `disjoint` remembers the addresses of those of which that is known.
  bool is_disjoint(uint64_t& disjoint) const;

  // To be called before `run`. Threads take tensors in any order, unless parameters share memory (tied by `data`): then
  // one thread takes them in turn.
  void settle_order(uint64_t& disjoint);

  // Updates everything, in one parallel region.
  void run(const Isa& isa) const;

  // Moves the memory that `run` moves, in the same chunks, and changes nothing. All tensors must be dense.
  void stream(const Isa& isa) const;

  // Where the scalars of some tensors come from: they are a function of these.
  struct Origin {
    uint32_t group;
    StepNumber t;
    bool new_average;
  };

  const std::vector<Segment>& segments() const { return segments_; }
  const std::vector<Group>& groups() const { return groups_; }
  const std::vector<Origin>& origins() const { return origins_; }   // one for each of scalars()
  const std::vector<Scalars>& scalars() const { return scalars_; }  // of no meaning where the step is not known
  int64_t elements() const { return elements_; }
  bool is_dense() const { return strided_.empty(); }

 private:
  bool has_shared_memory() const;
  uint32_t scalars_for(const StepNumber& t, bool new_average);
  template <class Kernel>
  void each_stretch(const Kernel& kernel) const;
  std::vector<Segment>::const_iterator segment_at(int64_t place) const;

  std::vector<Group> groups_;
  std::vector<Segment> segments_;
  std::vector<Scalars> scalars_;
  std::vector<Origin> origins_;
  size_t group_start_ = 0;  // index of the group's first entry there
  StridedStore strided_;
  int64_t elements_ = 0;
  bool in_order_ = false;
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
