#include "step.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <vector>

#include "quantise.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

// Above this many elements other Python threads may run while the kernels do.
constexpr int64_t release_gil_above = 65536;

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

// Takes the thread's scratch for the time of a step, so that a step inside a step has its own.
class Borrowed {
 public:
  Borrowed() : scratch_(std::move(kept())) { scratch_.clear(); }
  ~Borrowed() {
    scratch_.clear();
    kept() = std::move(scratch_);
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Scratch* operator->() { return &scratch_; }

 private:
  static Scratch& kept() {
    thread_local Scratch scratch;
    return scratch;
  }
  Scratch scratch_;
};

template <class Work>
void without_gil(int64_t elements, const Work& work) {
  if (elements > release_gil_above) {
    py::gil_scoped_release release;
    work();
  } else {
    work();
  }
}

// Has the processor fetch what reading this parameter will touch.
void prefetch(PyObject* parameter, const Slot* slots, size_t count) {
  __builtin_prefetch(parameter);
  for (size_t k = 0; k < count; ++k) slots[k].prefetch();
}

py::list with_gradient(const py::list& params) {
  py::list some;
  for (const py::handle parameter : params) {
    if (!parameter.attr("grad").is_none()) some.append(parameter);
  }
  return some;
}

// Whether a parameter stands in the group twice.
bool has_duplicates(const py::list& params) {
  std::unordered_set<PyObject*> all;
  for (const py::handle parameter : params) {
    if (!all.insert(parameter.ptr()).second) return true;
  }
  return false;
}

bool contains(const py::set& pairs, size_t group, size_t i) {
  return !pairs.empty() && pairs.contains(py::make_tuple(group, i));
}

}  // namespace

void Clip::measure(const Plan& plan) {
  norm = std::sqrt(plan.square_sum(isa())) * std::abs(unscale);
  // The squares of float64 gradients may overflow where the gradients do not.
  skipped = skip_nonfinite && !std::isfinite(norm) && !plan.has_finite_gradients();
  const double ratio = max_norm / (norm + 1e-6);
  coefficient = ratio > 1 ? 1 : ratio;  // a NaN stays
  if (std::isinf(max_norm)) coefficient = 1;
}

void meet_threads_of_torch() {
  // torch.set_num_threads reaches a thread when torch first asks for the number in it.
  thread_local bool met = false;
  if (!met) py::module_::import("torch").attr("get_num_threads")();
  met = true;
}

py::object step(Reader& reader, Memory& memory, const py::list& groups, const py::dict& state, const Request& request) {
  meet_threads_of_torch();
  Borrowed scratch;
  Reader::clear();
  Trouble trouble;
  py::list updated;
  Gatherer gatherer(reader, memory, state.ptr());
  size_t place = 0, slot_place = 0;  // of the group's first parameter in the memory

  for (size_t g = 0; g < groups.size(); ++g) {
    GroupView group(groups[g].cast<py::tuple>());
    group.numbers.scalars.seed = request.seed;
    group.numbers.scalars.draw = request.draw;
    scratch->plan.begin_group(group.numbers);
    const size_t size = group.params.size();
    if (memory.entries.size() < place + size) memory.entries.resize(place + size);
    Memory::Entry* const entries = memory.entries.data() + place;
    place += size;
    const size_t stride = group.slots();
    if (memory.slots.size() < slot_place + size * stride) memory.slots.resize(slot_place + size * stride);
    Slot* const slots = memory.slots.data() + slot_place;
    slot_place += size * stride;
    const size_t before = scratch->gradients.size();
    bool known = true;  // parameters that were all different in the last step still are

    for (size_t i = 0; i < std::min(size, group.params.size()); ++i) {
      const auto at = [&](size_t index) { return PyList_GET_ITEM(group.params.ptr(), static_cast<Py_ssize_t>(index)); };
      constexpr size_t ahead = 4;
      if (i + ahead < size) prefetch(at(i + ahead), slots + (i + ahead) * stride, stride);
      known = known && entries[i].seen == at(i);
      entries[i].seen = at(i);
      const Found found = gatherer.read(group, at(i), entries[i], slots + i * stride);
      if (found == Found::nothing) continue;
      if (found == Found::uncovered) {
        trouble.uncovered.append(g);
        break;
      }
      if (found != Found::ready) {
        (found == Found::repair ? trouble.repair : trouble.invalid).append(py::make_tuple(g, i));
        continue;
      }
      double t = contains(request.first_steps, g, i) ? 1 : 2;
      if (group.counted) {
        t = gatherer.step.read() + 1;
        scratch->counts.push_back({gatherer.step, t});
      }
      scratch->plan.add(gatherer.operands, t, contains(request.first_averages, g, i));
      scratch->gradients.push_back(std::move(gatherer.gradient));
    }
    if (!known && has_duplicates(group.params)) {  // torch steps them one after the other
      entries[0].seen = nullptr;
      trouble.uncovered.append(g);
    }
    const bool all = scratch->gradients.size() - before == size;
    updated.append(all ? group.params : with_gradient(group.params));
  }
  memory.state_version = version_of(state.ptr());
  if (!trouble.uncovered.empty() || !trouble.repair.empty() || !trouble.invalid.empty()) return py::cast(trouble);
  if (request.dry) return updated;

  scratch->plan.settle_order(memory.disjoint);
  Clip* const clip = request.clip.is_none() ? nullptr : request.clip.cast<Clip*>();
  without_gil(scratch->plan.elements(), [&] {
    if (clip != nullptr) {
      clip->measure(scratch->plan);
      if (clip->skipped) return;
      scratch->plan.scale_gradients(clip->coefficient);
    }
    for (const Counted& counted : scratch->counts) counted.count.write(counted.t);
    scratch->plan.run(isa());
  });
  return clip != nullptr && clip->skipped ? py::list() : updated;
}

void quantise_state(Reader& reader, py::handle values, py::handle codes, py::handle scales, int kind, bool back) {
  TensorView v, c, s;
  const bool fit = reader.read(values.ptr(), v) && reader.read(codes.ptr(), c) && reader.read(scales.ptr(), s) &&
                   v.dtype == Dtype::f32 && c.dtype == Dtype::u8 && s.dtype == Dtype::f32 && is_dense(v) &&
                   same_shape(v, c) && std::equal(v.stride, v.stride + v.dims, c.stride) && is_dense(s) &&
                   s.count() * quantised_block >= v.count() && (v.count() == 0 || (v.data && c.data && s.data));
  if (!fit) throw py::value_error("values, codes, scales: wrong types or layouts");
  if (kind < 0 || kind > 2) throw py::value_error("kind: 0, 1 or 2");
  const Coding coding(static_cast<StateKind>(kind), 0);
  auto* const value = static_cast<float*>(v.data);
  auto* const code = static_cast<uint8_t*>(c.data);
  auto* const scale = static_cast<float*>(s.data);
  for (int64_t at = 0, block = 0; at < v.count(); at += quantised_block, ++block) {
    const int64_t n = std::min(quantised_block, v.count() - at);
    if (back) {
      dequantise(code + at, n, scale[block], coding, value + at);
    } else {
      scale[block] = quantise(value + at, n, coding, code + at);
    }
  }
}

void measure(Reader& reader, const py::list& params, Clip& clip) {
  meet_threads_of_torch();
  Borrowed scratch;
  Reader::clear();
  scratch->plan.begin_group({});
  for (const py::handle parameter : params) {
    py::object gradient = py::reinterpret_steal<py::object>(reader.gradient(parameter.ptr()));
    Operands operands;
    TensorView& view = operands.view[grad];
    if (gradient.is_none() || !reader.read(gradient.ptr(), view) || view.data == nullptr) continue;
    if (!is_floating(view)) continue;
    operands.view[param] = view;
    operands.has[param] = operands.has[grad] = true;
    scratch->plan.add(operands, 1, false);
    scratch->gradients.push_back(std::move(gradient));
  }
  without_gil(scratch->plan.elements(), [&] { clip.measure(scratch->plan); });
}

}  // namespace onepass
