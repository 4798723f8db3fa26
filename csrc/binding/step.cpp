#include "binding/step.hpp"

#include <algorithm>

#include "rules/quantize.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

// Takes the thread's lists for the time of a step, so that a step inside a step has its own.
class Borrowed {
 public:
  Borrowed() : collected_(std::move(owned())) { collected_.clear(); }
  ~Borrowed() {
    collected_.clear();
    owned() = std::move(collected_);
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Collected* operator->() { return &collected_; }
  Collected& operator*() { return collected_; }

 private:
  static Collected& owned() {
    thread_local Collected collected;
    return collected;
  }
  Collected collected_;
};

// References to all objects and all memory that a step uses, so that other threads may let go of them meanwhile.
class Held {
 public:
  Held(const Collected& collected, const Native* native) : objects_(collected.objects), native_(native) {
    for (PyObject* const object : objects_) Py_INCREF(object);
    if (native == nullptr) return;  // storages are among what was kept already
    for (PyObject* const object : objects_) keep(native->of(object));
    for (const Native::Tensor gradient : collected.gradients) keep(gradient);
  }
  ~Held() {
    for (const Native::Tensor storage : storages_) native_->release(storage);
    for (PyObject* const object : objects_) Py_DECREF(object);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  bool complete() const { return complete_; }

 private:
  void keep(Native::Tensor tensor) {
    const Native::Tensor storage = native_->keep_storage(tensor);
    if (storage != nullptr) {
      storages_.push_back(storage);
    } else {
      complete_ = false;
    }
  }

  const std::vector<PyObject*>& objects_;
  const Native* native_;
  std::vector<Native::Tensor> storages_;
  bool complete_ = true;
};

// Does the work, without the GIL if it takes long, and then, with it, what follows from its result.
template <class Work, class Conclude>
void execute(const Collected& collected, const Native* native, const Work& work, const Conclude& conclude) {
  std::optional<Held> held;
  if (takes_long(collected.plan, collected.objects.size() + collected.gradients.size()))
    held.emplace(collected, native);
  bool done = false;
  {
    std::optional<py::gil_scoped_release> release;
    if (held && held->complete()) release.emplace();
    done = work();
  }
  if (done) conclude();
}

// Tells autograd of the changes.
void bump_versions(const std::vector<Collected::Changed>& changed, const Native* native) {
  if (native != nullptr) {
    for (const Collected::Changed& one : changed) native->bump_version(native->of(one.parameter));
  } else {
    py::list parameters;
    for (const Collected::Changed& one : changed) parameters.append(py::handle(one.parameter));
    py::module_::import("torch._C").attr("_increment_version")(parameters);
  }
}

bool has_counts(const Collected& collected) {
  return std::any_of(collected.changed.begin(), collected.changed.end(),
                     [](const Collected::Changed& one) { return one.count.data != nullptr; });
}

// Writes everything, or nothing if the clip skips the step.
void apply(Collected& collected, const Reader& reader, Memory& memory, const Request& request, bool in_order) {
  const auto work = [&] {
    if (!clip_gradients(collected.plan, memory, request, has_counts(collected))) return false;
    run(collected.plan, memory, request, in_order);
    return true;
  };
  execute(collected, reader.native(), work, [&] {
    for (const Collected::Changed& one : collected.changed) {
      if (one.count.data != nullptr) one.count.write(one.t);
    }
    memory.steps_applied += request.counts;
    bump_versions(collected.changed, reader.native());
  });
}

// Collects and checks; true if the step can be done.
bool prepare(Collected& collected, const Reader& reader, Memory& memory, const py::dict& state, const Request& request,
             StepFailure& failure, bool& in_order) {
  collect(collected, reader, memory, state, request, failure);
  if (failure.any()) return false;
  if (!check_aliasing(collected.plan, memory, in_order)) {
    for (size_t g = 0; g < collected.groups.size(); ++g) failure.unsupported.push_back(g);
    return false;
  }
  return true;
}

}  // namespace

void sync_num_threads() {
  // torch.set_num_threads reaches a thread when torch first asks for the number in it.
  thread_local bool synced = false;
  if (!synced) py::module_::import("torch").attr("get_num_threads")();
  synced = true;
}

std::optional<StepFailure> step(const Reader& reader, Memory& memory, const py::list& groups, const py::dict& state,
                                const Request& request) {
  sync_num_threads();
  Borrowed collected;
  for (const py::handle group : groups) collected->groups.emplace_back(reader, group.cast<py::tuple>());
  StepFailure failure;
  bool in_order = false;
  if (!prepare(*collected, reader, memory, state, request, failure, in_order)) return failure;
  if (!request.dry) apply(*collected, reader, memory, request, in_order);
  return std::nullopt;
}

bool remember(const Reader& reader, Memory& memory, const py::list& groups, const py::list& rows,
              const py::list& varying, uint64_t seed) {
  std::vector<GroupRow> views;
  for (const py::handle row : rows) views.emplace_back(reader, row.cast<py::tuple>());
  if (groups.size() != views.size() || varying.size() != views.size()) {
    throw py::value_error("rows, varying: one of each for every group");
  }
  return memory.groups.store(groups, std::move(views), varying, seed);
}

bool repeat(const Reader& reader, Memory& memory, const py::list& groups, const py::dict& state, Clip* clip) {
  sync_num_threads();
  Borrowed collected;
  if (!memory.groups.lookup(groups, collected->groups)) return false;
  const Request request{
      .clip = clip, .seed = memory.groups.seed(), .draw = static_cast<uint64_t>(memory.steps_applied)};
  StepFailure failure;
  bool in_order = false;
  if (!prepare(*collected, reader, memory, state, request, failure, in_order)) return false;
  apply(*collected, reader, memory, request, in_order);
  return true;
}

void quantize_state(const Reader& reader, py::handle values, py::handle codes, py::handle scales, int kind, bool back) {
  TensorView v, c, s;
  const bool fit = reader.read(values.ptr(), v) && reader.read(codes.ptr(), c) && reader.read(scales.ptr(), s) &&
                   v.dtype == Dtype::f32 && c.dtype == Dtype::u8 && s.dtype == Dtype::f32 && is_dense(v) &&
                   same_shape(v, c) && std::equal(v.stride, v.stride + v.dims, c.stride) && is_dense(s) &&
                   s.count() * quantized_block >= v.count() && (v.count() == 0 || (v.data && c.data && s.data));
  if (!fit) throw py::value_error("values, codes, scales: wrong types or layouts");
  if (kind < 0 || kind > 2) throw py::value_error("kind: 0, 1 or 2");
  const Coding coding(static_cast<StateKind>(kind), 0);
  Dithers dithers{};
  dithers.make(coding, v.count());
  auto* const value = static_cast<float*>(v.data);
  auto* const code = static_cast<uint8_t*>(c.data);
  auto* const scale = static_cast<float*>(s.data);
  for (int64_t at = 0, block = 0; at < v.count(); at += quantized_block, ++block) {
    const int64_t n = std::min(quantized_block, v.count() - at);
    if (back) {
      dequantize(code + at, n, scale[block], coding, value + at);
    } else {
      scale[block] = quantize(value + at, n, coding, dithers, code + at);
    }
  }
}

void measure(const Reader& reader, Memory& memory, const py::list& params, Clip& clip, const Request& request) {
  sync_num_threads();
  Borrowed collected;
  std::vector<std::pair<PyObject*, PyObject*>> gradients;  // and their storages
  for (const py::handle parameter : params) {
    py::object gradient = py::reinterpret_steal<py::object>(reader.gradient(parameter.ptr())), storage;
    if (gradient.is_none() || !reader.examine(gradient.ptr(), storage)) continue;
    gradients.emplace_back(gradient.ptr(), storage.ptr());
    collected->objects.push_back(gradient.ptr());
    collected->kept.push_back(std::move(gradient));
    if (storage) collected->kept.push_back(std::move(storage));
  }
  collected->plan.begin_group({});
  for (const auto& [gradient, storage] : gradients) {
    Operands operands;
    TensorView& view = operands.view[grad];
    if (!reader.view(gradient, storage, view) || view.data == nullptr) continue;
    if (!is_floating(view) || view.device != request.device) continue;
    operands.view[param] = view;
    operands.has[param] = operands.has[grad] = true;
    collected->plan.add(operands, 1, false);
  }
  const auto work = [&] {
    take_norm(collected->plan, memory, clip, request);
    return true;
  };
  execute(*collected, reader.native(), work, [] {});
}

}  // namespace onepass
