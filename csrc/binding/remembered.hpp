// What tells whether the parameter groups of an optimizer are as they were: a step then needs no description of them.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "group_view.hpp"

namespace onepass {

class Remembered {
 public:
  // Takes in the dicts of the groups and what they were described as. Remembers nothing where a value might change and
  // still be the same object, as a tensor or a list does.
  void take(const pybind11::list& groups, std::vector<GroupView> views);

  // Adds to `out` the descriptions, with the parameters that the groups have now. False if anything else has changed.
  bool match(const pybind11::list& groups, std::vector<GroupView>& out) const;

 private:
  // Owns constants only, so that no cycle of references leads through here.
  struct One {
    explicit One(GroupView described) : view(std::move(described)) {}
    GroupView view;                              // without its parameters
    std::vector<pybind11::object> keys, values;  // in the order of the dict; null: a value that does not matter
  };
  std::vector<One> groups_;
};

}  // namespace onepass
