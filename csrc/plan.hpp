// The work list of one step: every tensor of every group as one flat range of elements.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "dispatch.hpp"
#include "layout.hpp"
#include "segment.hpp"

namespace onepass {

// What the tensors of a group have in common. The order of `hyper` is that of the rule, hyper[0] the learning rate.
struct Group {
  int rule;
  double hyper[8];
  double l1_decay;    // proximal
  double ema_weight;  // 1 - ema_decay
  Scalars scalars;    // all but those that depend on the step number
};

class Plan {
 public:
  void clear();

  // Starts a group; the tensors that are added next belong to it.
  void begin_group(const Group& group);

  // One tensor: `t` is the number of this step for it, from 1; a new average starts as a copy of the parameter.
  void add(const Operands& operands, double t, bool new_average);

  // Sum of the squares of all gradients as they are in memory, in one parallel region.
  double square_sum(const Isa& isa) const;

  // No infinity and no NaN among the gradients. Slow: for the rare doubt.
  bool has_finite_gradients() const;

  // Multiplies all gradients on their way to the rules.
  void scale_gradients(double factor);

  // To be called before `run`. Threads take tensors in any order, unless parameters share memory (tied by `data`): then
  // one thread takes them in turn. `disjoint` remembers the addresses of parameters that do not.
  void settle_order(uint64_t& disjoint);

  // Updates everything, in one parallel region.
  void run(const Isa& isa) const;

  // Moves the memory that `run` moves, in the same chunks, and changes nothing. All tensors must be dense.
  void stream(const Isa& isa) const;

  int64_t elements() const { return elements_; }
  bool is_dense() const { return strided_.empty(); }

 private:
  bool has_shared_memory() const;
  uint32_t scalars_for(double t, bool new_average);
  template <class Kernel>
  void each_stretch(const Kernel& kernel) const;
  std::vector<Segment>::const_iterator segment_at(int64_t place) const;

  Group group_{};
  std::vector<Segment> segments_;
  std::vector<Scalars> scalars_;
  std::vector<std::pair<double, bool>> prepared_for_;  // the arguments of scalars_for, for each of scalars_
  size_t group_start_ = 0;                             // index of the group's first entry there
  StridedStore strided_;
  int64_t elements_ = 0;
  bool in_order_ = false;
};

// Names of the rules, and how many states each has.
struct RuleInfo {
  const char* name;
  int states;
};
const std::vector<RuleInfo>& rules();

}  // namespace onepass
