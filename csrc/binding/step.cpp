#include "step.hpp"

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
  Operands(Reader& reader, PyObject* state, PyObject* keys, bool counted)
      : reader_(reader), state_(state), keys_(keys), counted_(counted) {}

  Found read(PyObject* parameter) {
    grad_ = py::reinterpret_steal<py::object>(reader_.gradient(parameter));
    if (grad_.is_none()) return Found::nothing;
    if (!reader_.read(parameter, views[param])) return Found::uncovered;
    if (!reader_.read(grad_.ptr(), views[grad])) return Found::uncovered;
    const TensorView &p = views[param], &g = views[grad];
    if (g.dtype != p.dtype && g.dtype != Dtype::f32) return Found::uncovered;
    if (!free_of_overlap(p)) return Found::uncovered;
    if (!same_shape(p, g) || !has_memory(p) || !has_memory(g)) return Found::invalid;
    return read_states(parameter);
  }

  py::object take_gradient() { return std::move(grad_); }

  TensorView views[max_operands];
  int count = 0;
  Count step{};

 private:
  Found read_states(PyObject* parameter) {
    const Py_ssize_t states = PyTuple_GET_SIZE(keys_);
    count = first_state + static_cast<int>(states);
    if (states == 0 && !counted_) return Found::ready;
    PyObject* const own = reader_.lookup(state_, parameter);
    if (own == nullptr || !PyDict_Check(own)) return Found::repair;
    for (Py_ssize_t k = 0; k < states; ++k) {
      PyObject* const tensor = PyDict_GetItemWithError(own, PyTuple_GET_ITEM(keys_, k));
      TensorView& view = views[first_state + k];
      if (tensor == nullptr || tensor == Py_None || !reader_.read(tensor, view)) return Found::repair;
      if (!same_shape(views[param], view) || !has_memory(view) || !free_of_overlap(view)) return Found::repair;
    }
    if (!counted_) return Found::ready;
    static PyObject* const name = PyUnicode_InternFromString("step");
    PyObject* const tensor = PyDict_GetItemWithError(own, name);
    TensorView view;
    if (tensor == nullptr || !reader_.read_memory(tensor, view)) return Found::repair;
    step = {view.data, view.dtype == Dtype::f64};
    const bool usable = view.data != nullptr && view.count() == 1 && (view.dtype == Dtype::f32 || step.is_double);
    return usable ? Found::ready : Found::repair;
  }

  Reader& reader_;
  PyObject* state_;
  PyObject* keys_;
  bool counted_;
  py::object grad_;
};

}  // namespace

py::object step(Reader& reader, const py::list& groups, const py::dict& state, const py::set& fresh, bool dry) {
  thread_local Scratch kept;
  Scratch scratch = std::move(kept);
  scratch.clear();
  reader.clear();
  Trouble trouble;
  py::list updated;

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
    Operands operands(reader, state.ptr(), keys.ptr(), counted);
    for (size_t i = 0; i < params.size(); ++i) {
      PyObject* const parameter = PyList_GET_ITEM(params.ptr(), static_cast<Py_ssize_t>(i));
      const Found found = operands.read(parameter);
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
      updated.append(py::handle(parameter));
    }
  }

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
