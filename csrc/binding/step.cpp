#include "step.hpp"

#include <algorithm>
#include <vector>

#include "plan.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

// Above this many elements other Python threads may run while the kernels do.
constexpr int64_t release_gil_above = 65536;

// Where the step count of a parameter is kept: a tensor of one float or double.
struct Count {
  void* data;
  bool is_double;

  double read() const { return is_double ? *static_cast<double*>(data) : *static_cast<float*>(data); }
  void write(double t) const {
    if (is_double) {
      *static_cast<double*>(data) = t;
    } else {
      *static_cast<float*>(data) = static_cast<float>(t);
    }
  }
};

struct Counted {
  Count count;
  double t;
};

// The lists of one step. They are kept by the thread so that a step allocates nothing once they have grown.
struct Scratch {
  Plan plan;
  std::vector<Counted> counts;
  std::vector<py::object> gradients;  // keeps them alive while the kernels run

  void clear() {
    plan.clear();
    counts.clear();
    gradients.clear();
  }
};

Group read_group(const py::tuple& group) {
  const py::tuple numbers = group[4];
  const auto number = [&](size_t i) {
    const double value = PyFloat_AsDouble(PyTuple_GET_ITEM(numbers.ptr(), static_cast<Py_ssize_t>(i)));
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
  };
  Group out{};
  out.rule = group[1].cast<int>();
  if (out.rule < 0 || static_cast<size_t>(out.rule) >= rules().size()) throw py::value_error("rule: unknown number");
  out.scalars.scale = number(0);
  out.scalars.coupled = number(1);
  out.scalars.shrink = number(2);
  out.scalars.subgradient = number(3);
  out.l1_decay = number(4);
  if (numbers.size() < 5 || numbers.size() > 5 + std::size(out.hyper)) throw py::value_error("numbers: wrong length");
  for (size_t i = 5; i < numbers.size(); ++i) out.hyper[i - 5] = number(i);
  return out;
}

enum class Found { nothing, ready, uncovered, repair, invalid };

bool has_memory(const TensorView& view) { return view.data != nullptr || view.count() == 0; }

// Reads param, grad and states of one parameter.
class Operands {
 public:
  Operands(Reader& reader, PyObject* state, bool state_unchanged, PyObject* keys, bool counted)
      : reader_(reader), state_(state), state_unchanged_(state_unchanged), keys_(keys), counted_(counted) {}

  Found read(PyObject* parameter, Memory::Entry& entry) {
    grad_ = py::reinterpret_steal<py::object>(reader_.gradient(parameter));
    if (grad_.is_none()) return Found::nothing;
    if (!reader_.read(parameter, views[param])) return Found::uncovered;
    if (!reader_.read(grad_.ptr(), views[grad])) return Found::uncovered;
    const TensorView &p = views[param], &g = views[grad];
    if (g.dtype != p.dtype && g.dtype != Dtype::f32) return Found::uncovered;
    if (!free_of_overlap(p)) return Found::uncovered;
    if (!same_shape(p, g) || !has_memory(p) || !has_memory(g)) return Found::invalid;
    const int states = static_cast<int>(PyTuple_GET_SIZE(keys_));
    count = first_state + states;
    return states > 0 || counted_ ? read_states(parameter, entry, states) : Found::ready;
  }

  py::object take_gradient() { return std::move(grad_); }

  TensorView views[max_operands];
  int count = 0;
  Count step{};

 private:
  Found read_states(PyObject* parameter, Memory::Entry& entry, int states) {
    const bool known = state_unchanged_ && entry.parameter == parameter && entry.own != nullptr;
    PyObject* const own = known ? entry.own : reader_.lookup(state_, parameter);
    if (own == nullptr || !PyDict_Check(own)) return Found::repair;
    const uint64_t version = version_of(own);
    const bool unchanged = known && entry.own_version == version;
    entry.parameter = nullptr;  // until all of it is read again

    for (int k = 0; k < states; ++k) {
      TensorView& view = views[first_state + k];
      if (!read_state(own, PyTuple_GET_ITEM(keys_, k), unchanged, entry.slot[k], view)) return Found::repair;
      if (!same_shape(views[param], view) || !has_memory(view) || !free_of_overlap(view)) return Found::repair;
    }
    if (counted_) {
      static PyObject* const name = PyUnicode_InternFromString("step");
      TensorView view;
      if (!read_state(own, name, unchanged, entry.slot[states], view)) return Found::repair;
      if (view.data == nullptr || view.count() != 1) return Found::repair;
      if (view.dtype != Dtype::f32 && view.dtype != Dtype::f64) return Found::repair;
      step = {view.data, view.dtype == Dtype::f64};
    }
    entry.parameter = parameter;
    entry.own = own;
    entry.own_version = version;
    return Found::ready;
  }

  bool read_state(PyObject* own, PyObject* key, bool unchanged, Slot& slot, TensorView& out) {
    PyObject* const held = slot.tensor();
    PyObject* const tensor = unchanged && held != nullptr ? held : PyDict_GetItemWithError(own, key);
    if (tensor == nullptr || tensor == Py_None) return false;
    if (tensor == held && slot.read(out)) return true;
    if (!reader_.read(tensor, out)) return false;
    slot.hold(tensor, out);
    return true;
  }

  Reader& reader_;
  PyObject* state_;
  bool state_unchanged_;
  PyObject* keys_;
  bool counted_;
  py::object grad_;
};

// Has the processor fetch what reading this parameter will touch.
void prefetch(PyObject* parameter, const Memory::Entry& entry) {
  __builtin_prefetch(parameter);
  for (const Slot& slot : entry.slot) slot.prefetch();
}

py::list with_gradient(const py::list& params) {
  py::list some;
  for (const py::handle parameter : params) {
    if (!parameter.attr("grad").is_none()) some.append(parameter);
  }
  return some;
}

}  // namespace

py::object step(Reader& reader, Memory& memory, const py::list& groups, const py::dict& state, const py::set& fresh,
                bool dry) {
  thread_local Scratch kept;
  Scratch scratch = std::move(kept);
  scratch.clear();
  reader.clear();
  Trouble trouble;
  py::list updated;
  const bool state_unchanged = memory.state_version == version_of(state.ptr());
  if (!state_unchanged) {
    for (Memory::Entry& entry : memory.entries) entry.parameter = nullptr;
  }
  size_t place = 0;  // of the group's first parameter in the memory

  for (size_t g = 0; g < groups.size(); ++g) {
    const py::tuple group = groups[g];
    const py::list params = group[0];
    const py::tuple keys = group[2];
    const bool counted = group[3].cast<bool>();
    const Group numbers = read_group(group);
    scratch.plan.begin_group(numbers);
    if (static_cast<int>(keys.size()) != rules()[static_cast<size_t>(numbers.rule)].states) {
      throw py::value_error("keys: wrong number of states for the rule");
    }
    const size_t size = params.size();
    if (memory.entries.size() < place + size) memory.entries.resize(place + size);
    Memory::Entry* const entries = memory.entries.data() + place;
    place += size;
    const size_t before = scratch.gradients.size();

    Operands operands(reader, state.ptr(), state_unchanged, keys.ptr(), counted);
    for (size_t i = 0; i < std::min(size, params.size()); ++i) {
      PyObject* const parameter = PyList_GET_ITEM(params.ptr(), static_cast<Py_ssize_t>(i));
      constexpr size_t ahead = 4;
      if (i + ahead < size)
        prefetch(PyList_GET_ITEM(params.ptr(), static_cast<Py_ssize_t>(i + ahead)), entries[i + ahead]);
      const Found found = operands.read(parameter, entries[i]);
      if (found == Found::nothing) continue;
      if (found == Found::uncovered) {
        trouble.uncovered.append(g);
        break;
      }
      if (found != Found::ready) {
        (found == Found::repair ? trouble.repair : trouble.invalid).append(py::make_tuple(g, i));
        continue;
      }
      double t = 2;
      if (counted) {
        t = operands.step.read() + 1;
        scratch.counts.push_back({operands.step, t});
      } else if (!fresh.empty() && fresh.contains(py::make_tuple(g, i))) {
        t = 1;
      }
      scratch.plan.add(operands.views, operands.count, t);
      scratch.gradients.push_back(operands.take_gradient());
    }
    if (scratch.gradients.size() - before == size) {
      updated.append(params);
    } else {
      updated.append(with_gradient(params));
    }
  }
  memory.state_version = version_of(state.ptr());

  const bool ready = trouble.uncovered.empty() && trouble.repair.empty() && trouble.invalid.empty();
  if (ready && !dry) {
    for (const Counted& counted : scratch.counts) counted.count.write(counted.t);
    if (scratch.plan.elements() > release_gil_above) {
      py::gil_scoped_release release;
      scratch.plan.run(isa());
    } else {
      scratch.plan.run(isa());
    }
  }
  scratch.clear();
  kept = std::move(scratch);
  return ready ? py::object(updated) : py::cast(trouble);
}

}  // namespace onepass
