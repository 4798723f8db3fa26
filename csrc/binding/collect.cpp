#include "binding/collect.hpp"

#include "cpu/prefetch.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

bool has_memory(const TensorView& view) { return view.data != nullptr || view.count() == 0; }

}  // namespace

uint64_t version_of(PyObject* dict) {
#if PY_VERSION_HEX < 0x030C0000
  return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
#else
  static uint64_t unknown = 0;
  return dict != nullptr ? ++unknown : 0;
#endif
}

Gatherer::Gatherer(Reader& reader, Memory& memory, PyObject* state, int device)
    : reader_(reader),
      memory_(memory),
      state_(state),
      device_(device),
      state_unchanged_(memory.state_version == version_of(state)) {}

void Gatherer::prefetch_objects(const GroupView& group, PyObject* parameter, const Memory::Entry& entry,
                                size_t place) const {
  prefetch(parameter);
  prefetch(entry.own);
  for (size_t k = 0; k < group.slots; ++k) prefetch(memory_.tensors[place + k]);
}

// The tensors of the parameter's state, null where it has none; nothing where they have to be looked up.
std::span<PyObject* const> Gatherer::known_states(const GroupView& group, PyObject* parameter,
                                                  const Memory::Entry& entry, size_t place) const {
  if (group.slots == 0 || !knows(group, parameter, entry, place)) return {};
  return {memory_.tensors.data() + place, group.slots};
}

void Gatherer::prefetch_tensors(const GroupView& group, PyObject* parameter, const Memory::Entry& entry,
                                size_t place) const {
  if (!reader_.is_exact(Py_TYPE(parameter))) return;
  const Native& native = *reader_.native();
  native.prefetch(native.of(parameter));
  for (PyObject* const state : known_states(group, parameter, entry, place)) {
    if (state != nullptr) native.prefetch(native.of(state));
  }
}

void Gatherer::prefetch_storages(const GroupView& group, PyObject* parameter, const Memory::Entry& entry,
                                 size_t place) const {
  if (!reader_.is_exact(Py_TYPE(parameter))) return;
  const Native& native = *reader_.native();
  const Native::Tensor own = native.of(parameter), gradient = native.gradient(own);
  if (gradient != nullptr) native.prefetch(gradient);
  native.prefetch_storage(own);
  for (PyObject* const state : known_states(group, parameter, entry, place)) {
    if (state != nullptr) native.prefetch_storage(native.of(state));
  }
}

// Whether the tensors in the memory are still those of the parameter's state dict.
bool Gatherer::knows(const GroupView& group, PyObject* parameter, const Memory::Entry& entry, size_t place) const {
  return state_unchanged_ && entry.parameter == parameter && entry.own != nullptr &&
         entry.own_version == version_of(entry.own) && entry.place == place && entry.kind == group.kind;
}

Found Gatherer::read(const GroupView& group, PyObject* parameter, Memory::Entry& entry, size_t place) {
  for (bool& has : operands.has) has = false;
  operands.states = static_cast<int>(group.keys.size());
  operands.quantised = !group.scale_keys.empty();
  step = {};
  gradient = py::object();
  native_gradient = nullptr;
  if (reader_.native() != nullptr && reader_.is_exact(Py_TYPE(parameter))) {
    native_gradient = reader_.native()->gradient(reader_.native()->of(parameter));
    if (native_gradient == nullptr) return Found::nothing;
    if (read_natively(group, parameter, entry, place)) return Found::ready;
  }
  return read_with_python(group, parameter, entry, place);
}

// False if anything is out of the ordinary.
bool Gatherer::read_natively(const GroupView& group, PyObject* parameter, const Memory::Entry& entry, size_t place) {
  const Native& native = *reader_.native();
  if (group.slots != 0 && !knows(group, parameter, entry, place)) return false;
  TensorView &p = operands.view[param], &g = operands.view[grad];
  PyObject* const object = native.object_of(native_gradient);
  if (object != nullptr && !reader_.is_exact(Py_TYPE(object))) return false;
  if (!native.read(native.of(parameter), p) || !is_floating(p) || !free_of_overlap(p)) return false;
  if (!native.read(native_gradient, g) || (g.dtype != p.dtype && g.dtype != Dtype::f32)) return false;
  if (!same_shape(p, g) || !has_memory(p) || !has_memory(g) || p.device != device_ || g.device != device_) return false;
  operands.has[param] = operands.has[grad] = true;
  own_ = nullptr;
  return read_states(group, memory_.tensors.data() + place);
}

Found Gatherer::read_with_python(const GroupView& group, PyObject* parameter, Memory::Entry& entry, size_t place) {
  entry.own = nullptr;  // until all of it is read
  native_gradient = nullptr;
  gradient = py::reinterpret_steal<py::object>(reader_.gradient(parameter));
  if (gradient.is_none()) return Found::nothing;
  for (bool& has : operands.has) has = false;
  TensorView &p = operands.view[param], &g = operands.view[grad];
  if (!reader_.read(parameter, p) || !is_floating(p) || !free_of_overlap(p)) return Found::uncovered;
  if (!reader_.read(gradient.ptr(), g) || (g.dtype != p.dtype && g.dtype != Dtype::f32)) return Found::uncovered;
  if (p.device != device_ || g.device != device_) return Found::uncovered;
  if (!same_shape(p, g) || !has_memory(p) || !has_memory(g)) return Found::invalid;
  operands.has[param] = operands.has[grad] = true;
  if (group.slots != 0) {
    own_ = reader_.lookup(state_, parameter);
    const bool only_anchor = group.slots == 1 && group.anchor_key != Py_None;
    if (own_ == nullptr && only_anchor) return Found::ready;
    if (own_ == nullptr || !PyDict_Check(own_)) return Found::repair;
    const uint64_t version = version_of(own_);
    if (!read_states(group, memory_.tensors.data() + place)) return Found::repair;
    entry.own = own_;
    entry.own_version = version;
    entry.place = static_cast<uint32_t>(place);
    entry.kind = group.kind;
  }
  return Found::ready;
}

bool Gatherer::read_states(const GroupView& group, PyObject** tensor) {
  const int states = operands.states;
  const bool quantised = operands.quantised;
  for (int k = 0; k < states; ++k) {
    if (!read_like_param(PyTuple_GET_ITEM(group.keys.ptr(), k), *tensor++, first_state + k)) return false;
    const TensorView& view = operands.view[first_state + k];
    if (quantised ? view.dtype != Dtype::u8 : !is_floating(view)) return false;
  }
  if (group.step_key != Py_None) {
    TensorView view;
    const int place = group.counts_on_device ? device_ : on_host;
    if (!read_state(group.step_key, *tensor++, view, place) || view.data == nullptr || view.count() != 1) return false;
    if (view.dtype != Dtype::f32 && view.dtype != Dtype::f64) return false;
    step = {view.data, view.dtype == Dtype::f64};
  }
  if (group.ema_key != Py_None) {
    if (!read_like_param(group.ema_key, *tensor++, ema) || !is_floating(operands.view[ema])) return false;
  }
  if (group.master_key != Py_None) {
    const Dtype dtype = operands.view[param].dtype;
    PyObject*& own_master = *tensor++;  // every key keeps its place, whatever the parameter is converted to
    if (dtype >= Dtype::bf16) {
      if (!read_like_param(group.master_key, own_master, master)) return false;
      if (operands.view[master].dtype != (dtype == Dtype::bf16 ? Dtype::i16 : Dtype::f32)) return false;
    } else {
      own_master = nullptr;
    }
  }
  for (int k = 0; quantised && k < states; ++k) {
    TensorView view;
    if (!read_state(PyTuple_GET_ITEM(group.scale_keys.ptr(), k), *tensor++, view, device_)) return false;
    const int64_t blocks = (operands.view[param].count() + quantised_block - 1) / quantised_block;
    if (view.dtype != Dtype::f32 || view.count() != blocks || !is_dense(view) || !has_memory(view)) return false;
    operands.scale[k] = static_cast<float*>(view.data);
  }
  if (group.anchor_key != Py_None) {
    if (own_ != nullptr) *tensor = PyDict_GetItemWithError(own_, group.anchor_key);
    if (*tensor == nullptr) return true;
    if (!read_like_param(group.anchor_key, *tensor, anchor) || !is_floating(operands.view[anchor])) return false;
  }
  return true;
}

bool Gatherer::read_like_param(PyObject* key, PyObject*& tensor, int operand) {
  TensorView& view = operands.view[operand];
  operands.has[operand] = true;
  return read_state(key, tensor, view, device_) && same_shape(operands.view[param], view) && has_memory(view) &&
         free_of_overlap(view);
}

bool Gatherer::read_state(PyObject* key, PyObject*& tensor, TensorView& out, int device) {
  if (own_ == nullptr) {
    if (tensor == nullptr) return false;
    return reader_.native()->read(reader_.native()->of(tensor), out) && out.device == device;
  }
  tensor = PyDict_GetItemWithError(own_, key);
  return tensor != nullptr && tensor != Py_None && reader_.read(tensor, out) && out.device == device;
}

}  // namespace onepass
