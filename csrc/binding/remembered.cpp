#include "remembered.hpp"

#include <algorithm>
#include <utility>

namespace py = pybind11;

namespace onepass {
namespace {

// Numbers, names, None and tuples of those.
bool is_constant(PyObject* value) {
  if (PyTuple_CheckExact(value)) {
    PyObject** const first = PySequence_Fast_ITEMS(value);
    return std::all_of(first, first + PyTuple_GET_SIZE(value), is_constant);
  }
  return value == Py_None || PyFloat_CheckExact(value) || PyLong_CheckExact(value) || PyBool_Check(value) ||
         PyUnicode_CheckExact(value);
}

bool is(PyObject* key, const char* name) {
  return PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, name) == 0;
}

PyObject* params_of(const py::list& groups, size_t g) {
  PyObject* const group = PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(g));
  static PyObject* const name = PyUnicode_InternFromString("params");
  PyObject* const params = PyDict_Check(group) ? PyDict_GetItemWithError(group, name) : nullptr;
  return params != nullptr && PyList_Check(params) ? params : nullptr;
}

}  // namespace

void Remembered::take(const py::list& groups, std::vector<GroupView> views) {
  groups_.clear();
  std::vector<One> all;
  for (size_t g = 0; g < views.size(); ++g) {
    if (params_of(groups, g) == nullptr) return;
    One& one = all.emplace_back(std::move(views[g]));
    one.view.params = py::object();
    PyObject *key = nullptr, *value = nullptr;
    for (Py_ssize_t at = 0;
         PyDict_Next(PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(g)), &at, &key, &value);) {
      const bool matters = !is(key, "params") && !is(key, "param_names");
      if (matters && !is_constant(value)) return;
      one.keys.push_back(py::reinterpret_borrow<py::object>(key));
      one.values.push_back(matters ? py::reinterpret_borrow<py::object>(value) : py::object());
    }
  }
  groups_ = std::move(all);
}

bool Remembered::match(const py::list& groups, std::vector<GroupView>& out) const {
  if (groups_.empty() || groups.size() != groups_.size()) return false;
  for (size_t g = 0; g < groups_.size(); ++g) {
    const One& known = groups_[g];
    PyObject* const params = params_of(groups, g);
    if (params == nullptr) return false;
    PyObject *key = nullptr, *value = nullptr;
    size_t i = 0;
    for (Py_ssize_t at = 0; PyDict_Next(PyList_GET_ITEM(groups.ptr(), static_cast<Py_ssize_t>(g)), &at, &key, &value);
         ++i) {
      if (i == known.keys.size() || key != known.keys[i].ptr()) return false;
      if (known.values[i] && value != known.values[i].ptr()) return false;
    }
    if (i != known.keys.size()) return false;
    out.push_back(known.view);
    out.back().params = py::reinterpret_borrow<py::object>(params);
  }
  return true;
}

}  // namespace onepass
