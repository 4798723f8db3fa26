#include "binding/group_row.hpp"

#include <iterator>

#include "binding/execute.hpp"
#include "plan/plan.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

// A number that stands in the memory of a device is left there: in a tensor of one element. Bytes are a program.
bool is_on_device(const Reader& reader, PyObject* number, OnDevice& out) {
  if (PyBytes_Check(number)) {
    out.at = PyBytes_AS_STRING(number);  // as long as the group lives
    out.kind = OnDevice::program;
    out.bytes = PyBytes_GET_SIZE(number);
    return true;
  }
  if (PyFloat_CheckExact(number) || PyLong_Check(number) || !reader.is_exact(number)) return false;
  TensorView view;
  if (!reader.read(number, view) || view.count() != 1 || view.data == nullptr) return false;
  if (view.dtype != Dtype::f32 && view.dtype != Dtype::f64) return false;
  out.at = view.data;
  out.kind = view.dtype == Dtype::f64 ? OnDevice::f64 : OnDevice::f32;
  return true;
}

Group read_numbers(const Reader& reader, const py::tuple& group) {
  const py::tuple numbers = group[4];
  size_t next = 0;
  Group out{};
  const auto number = [&] {
    if (next >= numbers.size()) throw py::value_error("numbers: too few");
    PyObject* const given = PyTuple_GET_ITEM(numbers.ptr(), static_cast<Py_ssize_t>(next++));
    if (reads_devices && static_cast<size_t>(out.on_device) < std::size(out.device)) {
      OnDevice& place = out.device[out.on_device];
      if (is_on_device(reader, given, place)) {
        place.place = static_cast<int32_t>(next - 1);
        ++out.on_device;
        return 0.0;
      }
    }
    const double value = PyFloat_AsDouble(given);
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
  };
  out.rule = group[1].cast<int>();
  if (out.rule < 0 || static_cast<size_t>(out.rule) >= rules().size()) throw py::value_error("rule: unknown number");
  for (int i = 0; i < Group::numbers; ++i) {
    out.number[i] = i <= Group::hyper || next < numbers.size() ? number() : 0;
  }
  if (next != numbers.size()) throw py::value_error("numbers: too many");
  return out;
}

long counting(const py::tuple& group) { return PyLong_AsLong(PyTuple_GET_ITEM(group.ptr(), 3)); }

PyObject* step_name() {
  static PyObject* const name = PyUnicode_InternFromString("step");
  return name;
}

}  // namespace

GroupRow::GroupRow(const Reader& reader, const py::tuple& group)
    : params(group[0].cast<py::list>()),
      keys(group[2]),
      scale_keys(py::tuple(group[5])[0]),
      extras(group[5]),
      step_key(counting(group) != 0 ? step_name() : Py_None),
      counts_on_device(counting(group) == 2),
      ema_key(PyTuple_GET_ITEM(extras.ptr(), 1)),
      master_key(PyTuple_GET_ITEM(extras.ptr(), 2)),
      anchor_key(PyTuple_GET_ITEM(extras.ptr(), 3)),
      numbers(read_numbers(reader, group)) {
  const auto states = static_cast<size_t>(rules()[static_cast<size_t>(numbers.rule)].states);
  if (keys.size() != states) throw py::value_error("keys: not as many as the rule has states");
  if (!scale_keys.empty() && scale_keys.size() != states) throw py::value_error("extras: a scale for each state");
  slots = Slots(*this);
}

Slots::Slots(const GroupRow& group) {
  const auto add = [&](PyObject* name, Role given, int index) {
    Py_INCREF(name);
    PyUnicode_InternInPlace(&name);
    key[count] = py::reinterpret_steal<py::object>(name);
    role[count] = given;
    operand[count++] = index;
  };
  if (group.step_key != Py_None) add(group.step_key, Role::step, 0);  // torch puts it first, too
  int k = 0;
  for (const py::handle name : group.keys) add(name.ptr(), Role::state, first_state + k++);
  if (group.ema_key != Py_None) add(group.ema_key, Role::ema, ema);
  if (group.master_key != Py_None) add(group.master_key, Role::master, master);
  k = 0;
  for (const py::handle name : group.scale_keys) add(name.ptr(), Role::scale, k++);
  if (group.anchor_key != Py_None) add(group.anchor_key, Role::anchor, anchor);
}

int Slots::look_up(PyObject* name) const {
  for (int k = 0; k < count; ++k) {
    if (key[k].ptr() == name) return k;
  }
  if (!PyUnicode_CheckExact(name) || PyUnicode_CHECK_INTERNED(name)) return -1;
  for (int k = 0; k < count; ++k) {
    if (PyUnicode_Compare(key[k].ptr(), name) == 0) return k;
  }
  return -1;
}

}  // namespace onepass
