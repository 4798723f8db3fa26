#include "binding/step.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_set>
#include <vector>

#include "rules/quantize.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

// A parameter that a step changes, and what that step leaves beside the numbers.
struct Changed {
  PyObject* parameter;
  Native::Tensor gradient;  // null where a reference to its Python object is held
  Count count;              // without `data` if its steps are not counted
  double t;
};

// The lists of one step. They are kept by the thread so that a step allocates nothing once they have grown.
struct Scratch {
  std::vector<GroupView> groups;
  Plan plan;
  std::vector<Changed> changed;
  std::vector<py::object> gradients;  // keeps them alive while the kernels run

  void clear() {
    groups.clear();
    forget();
  }

  // What was read of the groups.
  void forget() {
    plan.clear();
    changed.clear();
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
  Scratch& operator*() { return scratch_; }

 private:
  static Scratch& kept() {
    thread_local Scratch scratch;
    return scratch;
  }
  Scratch scratch_;
};

// References to what was read natively, so that other Python threads may let go of it.
class Kept {
 public:
  Kept(const std::vector<Changed>& changed, const Native* native) : native_(native) {
    for (const Changed& one : changed) {
      if (one.gradient != nullptr) tensors_.push_back(native->keep(one.gradient));
    }
  }
  ~Kept() {
    for (const Native::Tensor tensor : tensors_) native_->release(tensor);
  }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;

 private:
  const Native* native_;
  std::vector<Native::Tensor> tensors_;
};

template <class Work>
void without_gil(const Scratch& scratch, const Native* native, const Work& work) {
  if (takes_long(scratch.plan)) {
    const Kept kept(scratch.changed, native);
    py::gil_scoped_release release;
    work();
  } else {
    work();
  }
}

// Whether a parameter stands in the group twice.
bool has_duplicates(const GroupView& group) {
  std::unordered_set<PyObject*> all;
  for (size_t i = 0; i < group.size(); ++i) {
    if (!all.insert(group.at(i)).second) return true;
  }
  return false;
}

bool contains(const py::set* pairs, size_t group, size_t i) {
  return pairs != nullptr && !pairs->empty() && pairs->contains(py::make_tuple(group, i));
}

// Reads all groups into the plan.
void gather(Scratch& scratch, Reader& reader, Memory& memory, const py::dict& state, const Request& request,
            Trouble& trouble) {
  Gatherer gatherer(reader, memory, state.ptr(), request.device);
  size_t first = 0, place = 0;  // of the group's first parameter in the memory

  for (size_t g = 0; g < scratch.groups.size(); ++g) {
    GroupView& group = scratch.groups[g];
    group.numbers.seed = request.seed;
    group.numbers.draw = request.draw;
    scratch.plan.begin_group(group.numbers);
    const size_t size = group.size();
    if (memory.entries.size() < first + size) memory.entries.resize(first + size);
    if (memory.tensors.size() < place + size * group.slots) memory.tensors.resize(place + size * group.slots);
    constexpr size_t few = 64;  // parameters, of which all is in a cache sooner than it could be asked for
    const bool prefetches = reader.native() != nullptr && size >= few;
    bool covered = true, known = true;  // parameters that were all different in the last step still are

    for (size_t i = 0; covered && i < std::min(size, group.size()); ++i) {
      const auto place_of = [&](size_t index) { return place + index * group.slots; };
      if (prefetches) {
        constexpr size_t far = 8, near = 4, next = 2;
        const size_t now = std::min(size, group.size());  // reading may run Python
        const size_t a = i + far, b = i + near, c = i + next;
        if (a < now) gatherer.prefetch_objects(group, group.at(a), memory.entries[first + a], place_of(a));
        if (b < now) gatherer.prefetch_tensors(group, group.at(b), memory.entries[first + b], place_of(b));
        if (c < now) gatherer.prefetch_storages(group, group.at(c), memory.entries[first + c], place_of(c));
      }
      PyObject* const parameter = group.at(i);
      Memory::Entry& entry = memory.entries[first + i];
      known = known && entry.parameter == parameter;
      const Found found = gatherer.read(group, parameter, entry, place_of(i));
      entry.parameter = parameter;
      switch (found) {
        case Found::ready:
          break;
        case Found::nothing:
          continue;
        case Found::uncovered:
          covered = false;
          continue;
        case Found::repair:
          trouble.repair.emplace_back(g, i);
          continue;
        case Found::invalid:
          trouble.invalid.emplace_back(g, i);
          continue;
      }
      StepNumber t = contains(request.first_steps, g, i) ? 1 : 2;
      if (group.counts_on_device) {
        t = {gatherer.step.data, gatherer.step.is_double};
        gatherer.step = {};
      } else if (group.step_key != Py_None) {
        t = gatherer.step.read() + 1;
      }
      scratch.plan.add(gatherer.operands, t, contains(request.first_averages, g, i));
      scratch.changed.push_back({parameter, gatherer.native_gradient, gatherer.step, t.known});
      if (gatherer.gradient) scratch.gradients.push_back(std::move(gatherer.gradient));
    }
    if (!known && has_duplicates(group)) {  // torch steps them one after the other
      memory.entries[first].parameter = nullptr;
      covered = false;
    }
    if (!covered) trouble.uncovered.push_back(g);
    first += size;
    place += size * group.slots;
  }
}

// What a step leaves beside the numbers: word to autograd, which refuses tensors of inference mode, and the counts.
void announce(const std::vector<Changed>& changed, const Native* native) {
  if (native != nullptr) {
    for (const Changed& one : changed) native->bump_version(native->of(one.parameter));
  } else {
    py::list parameters;
    for (const Changed& one : changed) parameters.append(py::handle(one.parameter));
    py::module_::import("torch._C").attr("_increment_version")(parameters);
  }
  for (const Changed& one : changed) {
    if (one.count.data != nullptr) one.count.write(one.t);
  }
}

bool has_counts(const std::vector<Changed>& changed) {
  return std::any_of(changed.begin(), changed.end(), [](const Changed& one) { return one.count.data != nullptr; });
}

// Reads everything once. False if Python code was run meanwhile: it may have changed what had been read.
bool look(Scratch& scratch, Reader& reader, Memory& memory, const py::dict& state, const Request& request,
          Trouble& trouble) {
  scratch.forget();
  Reader::clear();
  gather(scratch, reader, memory, state, request, trouble);
  if (reader.has_run_python()) return false;
  memory.state_version = version_of(state.ptr());
  if (!trouble.any() && !admits(scratch.plan, memory)) {
    for (size_t g = 0; g < scratch.groups.size(); ++g) trouble.uncovered.push_back(g);
  }
  return true;
}

void apply(Scratch& scratch, Reader& reader, Memory& memory, const Request& request) {
  const Native* const native = reader.native();
  bool applies = false;
  without_gil(scratch, native, [&] { applies = look_at(scratch.plan, memory, request, has_counts(scratch.changed)); });
  if (!applies) return;
  announce(scratch.changed, native);
  without_gil(scratch, native, [&] { run(scratch.plan, memory, request); });
  memory.steps_applied += request.counts;
}

}  // namespace

void meet_threads_of_torch() {
  // torch.set_num_threads reaches a thread when torch first asks for the number in it.
  thread_local bool met = false;
  if (!met) py::module_::import("torch").attr("get_num_threads")();
  met = true;
}

std::optional<Trouble> step(Reader& reader, Memory& memory, const py::list& groups, const py::dict& state,
                            const Request& request) {
  meet_threads_of_torch();
  Borrowed scratch;
  std::optional<Trouble> trouble;
  do {
    scratch->groups.clear();
    for (const py::handle group : groups) scratch->groups.emplace_back(reader, group.cast<py::tuple>());
  } while (!look(*scratch, reader, memory, state, request, trouble.emplace()));
  if (trouble->any()) return trouble;
  if (!request.dry) apply(*scratch, reader, memory, request);
  return std::nullopt;
}

bool remember(Reader& reader, Memory& memory, const py::list& groups, const py::list& described,
              const py::list& numbers, uint64_t seed) {
  std::vector<GroupView> views;
  for (const py::handle group : described) views.emplace_back(reader, group.cast<py::tuple>());
  if (groups.size() != views.size() || numbers.size() != views.size()) {
    throw py::value_error("described, numbers: one of each for every group");
  }
  return memory.groups.take(groups, std::move(views), numbers, seed);
}

bool repeat(Reader& reader, Memory& memory, const py::list& groups, const py::dict& state, uint64_t draw, Clip* clip) {
  meet_threads_of_torch();
  Borrowed scratch;
  if (!memory.groups.match(groups, scratch->groups)) return false;
  const Request request{.clip = clip, .seed = memory.groups.seed(), .draw = draw};
  Trouble trouble;
  if (!look(*scratch, reader, memory, state, request, trouble) || trouble.any()) return false;
  apply(*scratch, reader, memory, request);
  return true;
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
  Dithers dithers{};
  dithers.make(coding, v.count());
  auto* const value = static_cast<float*>(v.data);
  auto* const code = static_cast<uint8_t*>(c.data);
  auto* const scale = static_cast<float*>(s.data);
  for (int64_t at = 0, block = 0; at < v.count(); at += quantised_block, ++block) {
    const int64_t n = std::min(quantised_block, v.count() - at);
    if (back) {
      dequantise(code + at, n, scale[block], coding, value + at);
    } else {
      scale[block] = quantise(value + at, n, coding, dithers, code + at);
    }
  }
}

void measure(Reader& reader, Memory& memory, const py::list& params, Clip& clip, const Request& request) {
  meet_threads_of_torch();
  Borrowed scratch;
  Reader::clear();
  scratch->plan.begin_group({});
  for (const py::handle parameter : params) {
    py::object gradient = py::reinterpret_steal<py::object>(reader.gradient(parameter.ptr()));
    Operands operands;
    TensorView& view = operands.view[grad];
    if (gradient.is_none() || !reader.read(gradient.ptr(), view) || view.data == nullptr) continue;
    if (!is_floating(view) || view.device != request.device) continue;
    operands.view[param] = view;
    operands.has[param] = operands.has[grad] = true;
    scratch->plan.add(operands, 1, false);
    scratch->gradients.push_back(std::move(gradient));
  }
  without_gil(*scratch, reader.native(), [&] { take_norm(scratch->plan, memory, clip, request); });
}

}  // namespace onepass
