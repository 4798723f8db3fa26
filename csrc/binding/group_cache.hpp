// What tells whether the parameter groups of an optimizer are as they were: a step then needs no description of them.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "binding/group_row.hpp"

namespace onepass {

class Remembered {
 public:
  // Takes in the dicts of the groups and what they were described as. `numbers` holds a dict for each group: names of
  // values that only decide one of the description's numbers, with the places of these. False, and nothing is
  // remembered, where a value might change and still be the same object, as a tensor or a list does.
  bool take(const pybind11::list& groups, std::vector<GroupView> views, const pybind11::list& numbers, uint64_t seed);

  // Adds to `out` the descriptions, with the parameters and the numbers that the groups have now. False if anything
  // else has changed.
  bool match(const pybind11::list& groups, std::vector<GroupView>& out) const;

  // The options' seed, which all groups share.
  uint64_t seed() const { return seed_; }

 private:
  // Owns constants only, so that no cycle of references leads through here.
  struct Entry {
    pybind11::object key;
    pybind11::object value;  // null where it does not matter
    int number;              // the place of the number that it decides, or -1
  };
  struct One {
    GroupView view;              // without its parameters
    std::vector<Entry> entries;  // in the order of the dict
  };
  std::vector<One> groups_;
  uint64_t seed_ = 0;
};

// Tells whether the values of groups stay the same from step to step, apart from those that only are numbers.
class Steadiness {
 public:
  // Whether they are those of the call before, and such as can be remembered.
  bool holds(const pybind11::list& groups);

 private:
  uint64_t last_ = 0;
};

}  // namespace onepass
