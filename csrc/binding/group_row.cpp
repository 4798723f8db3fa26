#include "binding/group_row.hpp"

#include <iterator>

#include "binding/execute.hpp"
#include "plan/plan.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

// The fields of a row.
enum : Py_ssize_t { row_params, row_rule, row_states, row_counted, row_numbers, row_extras };
// The fields of its extras.
enum : Py_ssize_t { extra_scales, extra_ema, extra_master, extra_anchor };

py::object field(const py::handle& tuple, Py_ssize_t i) {
  if (!PyTuple_Check(tuple.ptr()) || i >= PyTuple_GET_SIZE(tuple.ptr())) throw py::value_error("row: too short");
  return py::reinterpret_borrow<py::object>(PyTuple_GET_ITEM(tuple.ptr(), i));
}

// A number that stands in the memory of a device is left there: in a tensor of one element. Bytes are a program.
bool is_on_device(Reader& reader, PyObject* number, OnDevice& out) {
  if (PyBytes_Check(number)) {
    out.at = PyBytes_AS_STRING(number);  // as long as the group lives
    out.kind = OnDevice::program;
    out.bytes = PyBytes_GET_SIZE(number);
    return true;
  }
  if (PyFloat_CheckExact(number) || PyLong_Check(number) || !reader.is_exact(Py_TYPE(number))) return false;
  TensorView view;
  if (!reader.read(number, view) || view.count() != 1 || view.data == nullptr) return false;
  if (view.dtype != Dtype::f32 && view.dtype != Dtype::f64) return false;
  out.at = view.data;
  out.kind = view.dtype == Dtype::f64 ? OnDevice::twofold : OnDevice::single;
  return true;
}

Group read_numbers(Reader& reader, const py::tuple& group) {
  const py::tuple numbers = field(group, row_numbers);
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
  out.rule = field(group, row_rule).cast<int>();
  if (out.rule < 0 || static_cast<size_t>(out.rule) >= rules().size()) throw py::value_error("rule: unknown number");
  for (int i = 0; i < Group::numbers; ++i) {
    out.number[i] = i <= Group::hyper || next < numbers.size() ? number() : 0;
  }
  if (next != numbers.size()) throw py::value_error("numbers: too many");
  return out;
}

long counting(const py::tuple& group) { return field(group, row_counted).cast<long>(); }

PyObject* step_name() {
  static PyObject* const name = PyUnicode_InternFromString("step");
  return name;
}

}  // namespace

GroupView::GroupView(Reader& reader, const py::tuple& group)
    : params(field(group, row_params).cast<py::list>()),
      keys(field(group, row_states)),
      scale_keys(field(field(group, row_extras), extra_scales)),
      extras(field(group, row_extras)),
      step_key(counting(group) != 0 ? step_name() : Py_None),
      counts_on_device(counting(group) == 2),
      ema_key(field(extras, extra_ema).ptr()),
      master_key(field(extras, extra_master).ptr()),
      anchor_key(field(extras, extra_anchor).ptr()),
      numbers(read_numbers(reader, group)) {
  const auto states = static_cast<size_t>(rules()[static_cast<size_t>(numbers.rule)].states);
  if (keys.size() != states) throw py::value_error("keys: not as many as the rule has states");
  if (!scale_keys.empty() && scale_keys.size() != states) throw py::value_error("extras: a scale for each state");
  slots = keys.size() + scale_keys.size();
  kind = static_cast<uint32_t>(numbers.rule) << 8 | static_cast<uint32_t>(!scale_keys.empty());
  uint32_t bit = 1;
  for (PyObject* const key : {step_key, ema_key, master_key, anchor_key}) {
    bit <<= 1;
    if (key == Py_None) continue;
    ++slots;
    kind |= bit;
  }
}

}  // namespace onepass
