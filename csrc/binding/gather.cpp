#include "gather.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

bool has_memory(const TensorView& view) { return view.data != nullptr || view.count() == 0; }

Group read_numbers(const py::tuple& group) {
  const py::tuple numbers = group[4];
  size_t next = 0;
  const auto number = [&] {
    if (next >= numbers.size()) throw py::value_error("numbers: too few");
    const double value = PyFloat_AsDouble(PyTuple_GET_ITEM(numbers.ptr(), static_cast<Py_ssize_t>(next++)));
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
  };
  Group out{};
  out.rule = group[1].cast<int>();
  if (out.rule < 0 || static_cast<size_t>(out.rule) >= rules().size()) throw py::value_error("rule: unknown number");
  out.scalars.scale = number();
  out.scalars.clamp = number();
  out.scalars.coupled = number();
  out.scalars.subgradient = number();
  out.scalars.anchor_slope = number();
  out.scalars.anchor_pull = number();
  out.scalars.shrink = number();
  out.l1_decay = number();
  out.ema_weight = number();
  out.scalars.stochastic = number() != 0;
  for (double& hyper : out.hyper) hyper = next < numbers.size() ? number() : 0;
  if (next != numbers.size()) throw py::value_error("numbers: too many");
  return out;
}

}  // namespace

GroupView::GroupView(const py::tuple& group)
    : params(group[0]),
      keys(group[2]),
      counted(group[3].cast<bool>()),
      scale_keys(py::tuple(group[5])[0]),
      ema_key(PyTuple_GET_ITEM(PyTuple_GET_ITEM(group.ptr(), 5), 1)),
      master_key(PyTuple_GET_ITEM(PyTuple_GET_ITEM(group.ptr(), 5), 2)),
      anchor_key(PyTuple_GET_ITEM(PyTuple_GET_ITEM(group.ptr(), 5), 3)),
      numbers(read_numbers(group)) {
  const auto states = static_cast<size_t>(rules()[static_cast<size_t>(numbers.rule)].states);
  if (keys.size() != states) throw py::value_error("keys: not as many as the rule has states");
  if (!scale_keys.empty() && scale_keys.size() != states) throw py::value_error("extras: a scale for each state");
}

size_t GroupView::slots() const {
  const auto one = [](PyObject* key) { return size_t{key != Py_None}; };
  return keys.size() + scale_keys.size() + size_t{counted} + one(ema_key) + one(master_key) + one(anchor_key);
}

Gatherer::Gatherer(Reader& reader, Memory& memory, PyObject* state)
    : reader_(reader), state_(state), state_unchanged_(memory.state_version == version_of(state)) {
  if (!state_unchanged_) {
    for (Memory::Entry& entry : memory.entries) entry.parameter = nullptr;
  }
}

Found Gatherer::read(const GroupView& group, PyObject* parameter, Memory::Entry& entry, Slot* slots) {
  gradient = py::reinterpret_steal<py::object>(reader_.gradient(parameter));
  if (gradient.is_none()) return Found::nothing;
  for (bool& has : operands.has) has = false;
  TensorView &p = operands.view[param], &g = operands.view[grad];
  if (!reader_.read(parameter, p) || !is_floating(p) || !free_of_overlap(p)) return Found::uncovered;
  if (!reader_.read(gradient.ptr(), g) || (g.dtype != p.dtype && g.dtype != Dtype::f32)) return Found::uncovered;
  if (!same_shape(p, g) || !has_memory(p) || !has_memory(g)) return Found::invalid;
  operands.has[param] = operands.has[grad] = true;
  return read_states(group, parameter, entry, slots);
}

Found Gatherer::read_states(const GroupView& group, PyObject* parameter, Memory::Entry& entry, Slot* slot) {
  const int states = static_cast<int>(group.keys.size());
  const bool quantised = !group.scale_keys.empty();
  const bool averaged = group.ema_key != Py_None, mastered = group.master_key != Py_None;
  const bool anchored = group.anchor_key != Py_None;
  operands.states = states;
  operands.quantised = quantised;
  if (states == 0 && !group.counted && !averaged && !mastered && !anchored) return Found::ready;

  const bool known = state_unchanged_ && entry.parameter == parameter;
  own_ = known ? entry.own : reader_.lookup(state_, parameter);
  if (own_ == nullptr && states == 0 && !group.counted && !averaged && !mastered) return Found::ready;
  if (own_ == nullptr || !PyDict_Check(own_)) return Found::repair;
  const uint64_t version = version_of(own_);
  own_unchanged_ = known && entry.own_version == version;
  entry.parameter = nullptr;  // until all of it is read again

  for (int k = 0; k < states; ++k) {
    if (!read_like_param(PyTuple_GET_ITEM(group.keys.ptr(), k), *slot++, first_state + k)) return Found::repair;
    const TensorView& view = operands.view[first_state + k];
    if (quantised ? view.dtype != Dtype::u8 : !is_floating(view)) return Found::repair;
  }
  if (group.counted) {
    static PyObject* const name = PyUnicode_InternFromString("step");
    TensorView view;
    if (!read_state(name, *slot++, view) || view.data == nullptr || view.count() != 1) return Found::repair;
    if (view.dtype != Dtype::f32 && view.dtype != Dtype::f64) return Found::repair;
    step = {view.data, view.dtype == Dtype::f64};
  }
  if (averaged) {
    if (!read_like_param(group.ema_key, *slot++, ema) || !is_floating(operands.view[ema])) return Found::repair;
  }
  if (mastered && operands.view[param].dtype >= Dtype::bf16) {
    if (!read_like_param(group.master_key, *slot++, master)) return Found::repair;
    const Dtype wanted = operands.view[param].dtype == Dtype::bf16 ? Dtype::i16 : Dtype::f32;
    if (operands.view[master].dtype != wanted) return Found::repair;
  }
  for (int k = 0; quantised && k < states; ++k) {
    TensorView view;
    if (!read_state(PyTuple_GET_ITEM(group.scale_keys.ptr(), k), *slot++, view)) return Found::repair;
    const int64_t blocks = (operands.view[param].count() + quantised_block - 1) / quantised_block;
    if (view.dtype != Dtype::f32 || view.count() != blocks || !is_dense(view) || !has_memory(view))
      return Found::repair;
    operands.scale[k] = static_cast<float*>(view.data);
  }
  if (anchored && PyDict_Contains(own_, group.anchor_key) == 1) {
    if (!read_like_param(group.anchor_key, *slot++, anchor) || !is_floating(operands.view[anchor]))
      return Found::repair;
  }
  entry.parameter = parameter;
  entry.own = own_;
  entry.own_version = version;
  return Found::ready;
}

bool Gatherer::read_like_param(PyObject* key, Slot& slot, int operand) {
  TensorView& view = operands.view[operand];
  operands.has[operand] = true;
  return read_state(key, slot, view) && same_shape(operands.view[param], view) && has_memory(view) &&
         free_of_overlap(view);
}

bool Gatherer::read_state(PyObject* key, Slot& slot, TensorView& out) {
  PyObject* const held = slot.tensor();
  PyObject* const tensor = own_unchanged_ && held != nullptr ? held : PyDict_GetItemWithError(own_, key);
  if (tensor == nullptr || tensor == Py_None) return false;
  if (tensor == held && slot.read(out)) return true;
  if (!reader_.read(tensor, out)) return false;
  slot.hold(tensor, out);
  return true;
}

}  // namespace onepass
