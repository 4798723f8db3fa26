#include "binding/group_cache.hpp"

#include <algorithm>

namespace py = pybind11;

namespace onepass {
namespace {

template <class Property>
bool is_tuple_of(PyObject* value, const Property& property) {
  if (!PyTuple_CheckExact(value)) return false;
  PyObject** const first = PySequence_Fast_ITEMS(value);
  return std::all_of(first, first + PyTuple_GET_SIZE(value), property);
}

// Numbers, names, None and tuples of those.
bool is_constant(PyObject* value) {
  return is_tuple_of(value, is_constant) || value == Py_None || PyFloat_CheckExact(value) || PyLong_CheckExact(value) ||
         PyBool_Check(value) || PyUnicode_CheckExact(value);
}

bool is_number(PyObject* value) {
  return PyFloat_CheckExact(value) || PyLong_CheckExact(value) || is_tuple_of(value, is_number);
}

// Puts a number, or those of a tuple, where they belong. False if they are none, or not as many, or one has another
// sign or has become 0 or ceased to be: on that may depend which rule it is.
bool renew(PyObject* value, PyObject* known, double* place) {
  if (PyTuple_CheckExact(value) && PyTuple_CheckExact(known) && PyTuple_GET_SIZE(value) == PyTuple_GET_SIZE(known)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i) {
      if (!renew(PyTuple_GET_ITEM(value, i), PyTuple_GET_ITEM(known, i), place + i)) return false;
    }
    return true;
  }
  if (!PyFloat_CheckExact(value) || !(PyFloat_CheckExact(known) || PyLong_CheckExact(known))) return false;
  const double now = PyFloat_AS_DOUBLE(value), before = PyFloat_AsDouble(known);
  *place = now;
  return (now > 0) == (before > 0) && (now == 0) == (before == 0);
}

// What no description depends on: parameters are read in each step, schedules and counts are for after it.
bool matters(PyObject* key) {
  if (!PyUnicode_Check(key)) return true;
  constexpr const char* others[] = {"params", "param_names", "schedules", "steps_applied"};
  return std::none_of(std::begin(others), std::end(others),
                      [&](const char* name) { return PyUnicode_CompareWithASCIIString(key, name) == 0; });
}

PyObject* at(const py::list& list, size_t i) { return PyList_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i)); }

// A list, borrowed, or null.
PyObject* params_of(PyObject* group) {
  static PyObject* const name = PyUnicode_InternFromString("params");
  PyObject* const params = PyDict_Check(group) ? PyDict_GetItemWithError(group, name) : nullptr;
  return params != nullptr && PyList_Check(params) ? params : nullptr;
}

// Calls visit(key, value) until it returns false; returns whether it never did.
template <class Visit>
bool each_entry(PyObject* dict, const Visit& visit) {
  PyObject *key = nullptr, *value = nullptr;
  for (Py_ssize_t position = 0; PyDict_Next(dict, &position, &key, &value);) {
    if (!visit(key, value)) return false;
  }
  return true;
}

}  // namespace

bool Remembered::take(const py::list& groups, std::vector<GroupView> views, const py::list& numbers, uint64_t seed) {
  groups_.clear();
  seed_ = seed;
  std::vector<One> all;
  for (size_t g = 0; g < views.size(); ++g) {
    PyObject* const group = at(groups, g);
    if (params_of(group) == nullptr) return false;
    One& one = all.emplace_back(One{std::move(views[g]), {}});
    one.view.params = py::object();
    const auto places = py::reinterpret_borrow<py::dict>(at(numbers, g));
    const bool constant = each_entry(group, [&](PyObject* key, PyObject* value) {
      const bool counts = matters(key);
      PyObject* const place = PyDict_GetItemWithError(places.ptr(), key);
      one.entries.push_back({py::reinterpret_borrow<py::object>(key),
                             counts ? py::reinterpret_borrow<py::object>(value) : py::object(),
                             place != nullptr ? static_cast<int>(PyLong_AsLong(place)) : -1});
      return !counts || is_constant(value);
    });
    if (!constant) return false;
  }
  groups_ = std::move(all);
  return true;
}

bool Remembered::match(const py::list& groups, std::vector<GroupView>& out) const {
  if (groups_.empty() || groups.size() != groups_.size()) return false;
  for (size_t g = 0; g < groups_.size(); ++g) {
    PyObject* const group = at(groups, g);
    PyObject* const params = params_of(group);
    if (params == nullptr) return false;
    GroupView& view = out.emplace_back(groups_[g].view);
    view.params = py::reinterpret_borrow<py::object>(params);
    auto entry = groups_[g].entries.begin();
    const auto end = groups_[g].entries.end();
    const bool same = each_entry(group, [&](PyObject* key, PyObject* value) {
      if (entry == end || key != entry->key.ptr()) return false;
      const Entry& known = *entry++;
      if (!known.value || value == known.value.ptr()) return true;
      return known.number >= 0 && renew(value, known.value.ptr(), &view.numbers.number[known.number]);
    });
    if (!same || entry != end) return false;
  }
  return true;
}

bool Steadiness::holds(const py::list& groups) {
  uint64_t now = 1;
  const auto mix = [&](uint64_t word) { now = (now ^ word) * 0x9E3779B97F4A7C15u; };
  for (const py::handle group : groups) {
    const bool constant = PyDict_Check(group.ptr()) && each_entry(group.ptr(), [&](PyObject* key, PyObject* value) {
                            mix(reinterpret_cast<uintptr_t>(key));
                            if (!is_number(value)) mix(reinterpret_cast<uintptr_t>(value));
                            return is_constant(value) || !matters(key);
                          });
    if (!constant) return false;
  }
  return std::exchange(last_, now) == now;
}

}  // namespace onepass
