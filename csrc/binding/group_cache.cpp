#include "binding/group_cache.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <tuple>
#include <utility>

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

// Puts a number, or those of a tuple, into the slots. False if they are none, or not as many, or out of range, or one
// has another sign or has become 0 or ceased to be: on that may depend which rule it is.
bool renew(PyObject* value, PyObject* known, double upper, double* slot) {
  if (PyTuple_CheckExact(value) && PyTuple_CheckExact(known) && PyTuple_GET_SIZE(value) == PyTuple_GET_SIZE(known)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(value); ++i) {
      if (!renew(PyTuple_GET_ITEM(value, i), PyTuple_GET_ITEM(known, i), upper, slot + i)) return false;
    }
    return true;
  }
  if (!PyFloat_CheckExact(value) || !(PyFloat_CheckExact(known) || PyLong_CheckExact(known))) return false;
  const double now = PyFloat_AS_DOUBLE(value), before = PyFloat_AsDouble(known);
  *slot = now;
  return (now > 0) == (before > 0) && (now == 0) == (before == 0) && now < upper;
}

PyObject* at(const py::list& list, size_t i) { return PyList_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i)); }

// A list, borrowed, or null.
PyObject* params_of(PyObject* group) {
  static PyObject* const name = PyUnicode_InternFromString("params");
  PyObject* const params = PyDict_CheckExact(group) ? PyDict_GetItemWithError(group, name) : nullptr;
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

bool GroupCache::store(const py::list& groups, std::vector<GroupRow> rows, const py::list& varying, uint64_t seed) {
  groups_.clear();
  seed_ = seed;
  std::vector<Known> all;
  for (size_t g = 0; g < rows.size(); ++g) {
    PyObject* const group = at(groups, g);
    if (params_of(group) == nullptr) return false;
    Known& known = all.emplace_back(Known{std::move(rows[g]), {}});
    known.row.params = py::object();
    const auto slots = py::reinterpret_borrow<py::dict>(at(varying, g));
    const bool constant = each_entry(group, [&](PyObject* key, PyObject* value) {
      Entry& entry = known.entries.emplace_back();
      entry.key = py::reinterpret_borrow<py::object>(key);
      entry.slot = -1;
      const bool varies = slots.contains(py::handle(key));
      if (varies) std::tie(entry.slot, entry.upper) = slots[py::handle(key)].cast<std::pair<int, double>>();
      if (varies && entry.slot < 0) return true;
      entry.value = py::reinterpret_borrow<py::object>(value);
      return is_constant(value);
    });
    if (!constant) return false;
  }
  groups_ = std::move(all);
  return true;
}

bool GroupCache::lookup(const py::list& groups, std::vector<GroupRow>& out) const {
  if (groups_.empty() || groups.size() != groups_.size()) return false;
  for (size_t g = 0; g < groups_.size(); ++g) {
    PyObject* const group = at(groups, g);
    PyObject* const params = params_of(group);
    if (params == nullptr) return false;
    GroupRow& row = out.emplace_back(groups_[g].row);
    row.params = py::reinterpret_borrow<py::object>(params);
    auto entry = groups_[g].entries.begin();
    const auto end = groups_[g].entries.end();
    const bool same = each_entry(group, [&](PyObject* key, PyObject* value) {
      if (entry == end || key != entry->key.ptr()) return false;
      const Entry& known = *entry++;
      if (!known.value || value == known.value.ptr()) return true;
      return known.slot >= 0 && renew(value, known.value.ptr(), known.upper, &row.numbers.number[known.slot]);
    });
    if (!same || entry != end) return false;
  }
  return true;
}

}  // namespace onepass
