// What tells whether the parameter groups of an optimizer are as they were: a step then need not pack them.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "binding/group_row.hpp"

namespace onepass {

class GroupCache {
 public:
  // Takes in dicts of groups, which nobody else may change, and the rows that they were packed as. `varying` holds a
  // dict for each group: names of values that only decide one of the row's numbers, with (the slot of that, an upper
  // bound that it must stay below), or with the slot -1 where they decide nothing. False, and nothing is remembered,
  // where another value might change and still be the same object, as a tensor or a list does.
  bool store(const pybind11::list& groups, std::vector<GroupRow> rows, const pybind11::list& varying, uint64_t seed);

  // Adds to `out` the rows, with the parameters and the numbers that the groups have now. False if anything else has
  // changed.
  bool lookup(const pybind11::list& groups, std::vector<GroupRow>& out) const;

  // The options' seed, which all groups share.
  uint64_t seed() const { return seed_; }

 private:
  // Owns constants only, so that no cycle of references leads through here.
  struct Entry {
    pybind11::object key;
    pybind11::object value;  // null where it does not affect the row
    int slot;                // of the number that it decides, or -1
    double upper;            // that number stays below it
  };
  struct Known {
    GroupRow row;                // without its parameters
    std::vector<Entry> entries;  // in the order of the dict
  };
  std::vector<Known> groups_;
  uint64_t seed_ = 0;
};

}  // namespace onepass
