// More than 400 lines: the two ways of collecting, without Python and with it, share what they read and how they end.
#include "binding/collect.hpp"

#include <algorithm>
#include <array>
#include <unordered_set>

#include "binding/state_cursor.hpp"
#include "binding/step.hpp"
#include "cpu/prefetch.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

using SlotArray = std::array<PyObject*, Slots::most>;

enum class Found { nothing, ready, unsupported, missing_state, mismatch };

bool has_memory(const TensorView& view) { return view.data != nullptr || view.count() == 0; }

// The values of a state dict for the group's slots, null where it has none, or is none.
void find_slots(PyObject* own, const Slots& slots, SlotArray& found) {
  std::fill_n(found.begin(), slots.count, nullptr);
  if (own == nullptr || !PyDict_Check(own)) return;
  PyObject *key = nullptr, *value = nullptr;
  int expected = 0, missing = slots.count;
  for (Py_ssize_t position = 0; missing != 0 && PyDict_Next(own, &position, &key, &value);) {
    const int k = slots.index_of(key, expected);
    if (k < 0) continue;
    found[static_cast<size_t>(k)] = value == Py_None ? nullptr : value;
    expected = k + 1;
    --missing;
  }
}

// Reads one parameter's tensors into `operands` and `step`: view(k, out) that of slot k, or
constexpr int of_parameter = -2, of_gradient = -1;

class OperandReader {
 public:
  explicit OperandReader(int device) : device_(device) {}

  Operands operands;
  Count step;

  template <class View>
  Found read(const GroupRow& group, const SlotArray& slot, const View& view) {
    for (bool& has : operands.has) has = false;
    operands.states = static_cast<int>(group.keys.size());
    operands.quantized = !group.scale_keys.empty();
    step = {};
    TensorView &p = operands.view[param], &g = operands.view[grad];
    if (!view(of_parameter, p) || !is_floating(p) || !free_of_overlap(p)) return Found::unsupported;
    if (!view(of_gradient, g) || !can_follow(p.dtype, g.dtype)) return Found::unsupported;
    if (p.device != device_ || g.device != device_) return Found::unsupported;
    if (!same_shape(p, g) || !has_memory(p) || !has_memory(g)) return Found::mismatch;
    operands.same_strides = same_strides(p, g);
    operands.has[param] = operands.has[grad] = true;
    for (int k = 0; k < group.slots.count; ++k) {
      if (slot[static_cast<size_t>(k)] == nullptr ? !may_lack(group.slots, k) : !read_slot(group, k, view))
        return Found::missing_state;
    }
    return Found::ready;
  }

 private:
  static bool can_follow(Dtype parameter, Dtype gradient) {
    return gradient == parameter || gradient == Dtype::f32 || (parameter == Dtype::f32 && gradient == Dtype::bf16);
  }

  bool is_low() const { return operands.view[param].dtype >= Dtype::bf16; }

  // Only parameters of low precision have a master, whatever the others have been before; anchors come and go.
  bool may_lack(const Slots& slots, int k) const {
    return slots.role[k] == Slots::Role::anchor || (slots.role[k] == Slots::Role::master && !is_low());
  }

  template <class View>
  bool read_slot(const GroupRow& group, int k, const View& view) {
    const Dtype own = operands.view[param].dtype;
    const int operand = group.slots.operand[k];
    switch (group.slots.role[k]) {
      case Slots::Role::state:
        return read_like_param(k, operand, view) &&
               (operands.quantized ? operands.view[operand].dtype == Dtype::u8 : is_floating(operands.view[operand]));
      case Slots::Role::ema:
      case Slots::Role::anchor:
        return read_like_param(k, operand, view) && is_floating(operands.view[operand]);
      case Slots::Role::master:
        if (!is_low()) return true;
        return read_like_param(k, operand, view) &&
               operands.view[operand].dtype == (own == Dtype::bf16 ? Dtype::i16 : Dtype::f32);
      case Slots::Role::scale: {
        TensorView found;
        const int64_t blocks = (operands.view[param].count() + quantized_block - 1) / quantized_block;
        if (!view(k, found) || found.device != device_ || found.dtype != Dtype::f32 || found.count() != blocks) {
          return false;
        }
        operands.scale[operand] = static_cast<float*>(found.data);
        return is_dense(found) && has_memory(found);
      }
      case Slots::Role::step: {
        TensorView found;
        if (!view(k, found) || found.device != (group.counts_on_device ? device_ : on_host)) return false;
        if (found.data == nullptr || found.count() != 1) return false;
        if (found.dtype != Dtype::f32 && found.dtype != Dtype::f64) return false;
        step = {found.data, found.dtype == Dtype::f64};
        return group.counts_on_device || step.read() >= 0;
      }
    }
    return false;
  }

  template <class View>
  bool read_like_param(int k, int operand, const View& view) {
    TensorView& found = operands.view[operand];
    operands.has[operand] = true;
    if (!view(k, found) || found.device != device_ || !has_memory(found)) return false;
    if (!same_shape(operands.view[param], found)) return false;
    if (same_strides(operands.view[param], found)) return true;
    operands.same_strides = false;
    return free_of_overlap(found);
  }

  int device_;
};

class Collector {
 public:
  Collector(Collected& out, const Reader& reader, PyObject* state, const Request& request, StepFailure& failure)
      : out_(out),
        reader_(reader),
        native_(reader.native()),
        state_(state),
        request_(request),
        failure_(failure),
        operands_(request.device) {}

  // Without Python and without references, as nothing else can run. False if a tensor is not of torch's own types: all
  // has to be collected with Python then.
  bool collect_natively() {
    StateCursor cursor(state_);
    for (size_t g = 0; g < out_.groups.size(); ++g) {
      begin(g);
      const size_t size = group().size();
      PyObject** const parameters = PySequence_Fast_ITEMS(group().params.ptr());
      out_.parameters.insert(out_.parameters.end(), parameters, parameters + size);
      out_.ends.push_back(out_.parameters.size());
      out_.objects.reserve(out_.objects.size() + size * static_cast<size_t>(group().slots.count + 1));
      if (!(size < worth_prefetching ? pass<0>(cursor, size) : pass<1>(cursor, size))) return false;
    }
    return true;
  }

  // With references to everything, as Python may run between the finding and the reading of tensors.
  void collect_with_python() {
    std::vector<std::vector<Parts>> all;
    for (const GroupRow& group : out_.groups) {
      std::vector<Parts>& parts = all.emplace_back();
      for (size_t i = 0; i < group.size(); ++i) {  // its size may change: a gradient may be a property
        Parts& one = parts.emplace_back();
        one.parameter = keep(group.at(i));
        out_.parameters.push_back(one.parameter);
        const py::object gradient = py::reinterpret_steal<py::object>(reader_.gradient(one.parameter));
        one.gradient = gradient.is_none() ? nullptr : keep(gradient.ptr());
      }
      out_.ends.push_back(out_.parameters.size());
    }
    StateCursor cursor(state_);
    for (size_t g = 0; g < all.size(); ++g) {
      for (Parts& one : all[g]) find_states(cursor, out_.groups[g], one);
    }
    for (std::vector<Parts>& parts : all) {
      for (Parts& one : parts) examine(one);
    }
    for (size_t g = 0; g < all.size(); ++g) {
      begin(g);
      for (size_t i = 0; i < all[g].size() && supported_; ++i) read_parts(i, all[g][i]);
    }
  }

 private:
  // Fewer parameters than this are all in a cache sooner than they could be asked for.
  static constexpr size_t worth_prefetching = 64;

  // One parameter while it goes through the stages; nothing of it is kept.
  struct Passing {
    PyObject* parameter;
    PyObject* own;            // its state dict, or null
    Native::Tensor gradient;  // or null
    SlotArray slot;
    int slots;  // of the group, or 0 without a gradient
  };
  static constexpr size_t stages = 5, most_passing = 8;
  static_assert(stages <= most_passing);

  // One parameter, where Python may run: all of it is kept.
  struct Parts {
    PyObject* parameter = nullptr;
    PyObject* gradient = nullptr;
    bool has_state = true;
    SlotArray slot{};
    std::array<PyObject*, Slots::most + 2> storage{};  // of the slots, the parameter, the gradient
    bool supported = true, writable = true;
    std::array<bool, Slots::most> readable{};
  };

  void begin(size_t g) {
    g_ = g;
    supported_ = true;
    out_.groups[g].numbers.seed = request_.seed;
    out_.groups[g].numbers.draw = request_.draw;
    out_.plan.begin_group(out_.groups[g].numbers);
  }

  const GroupRow& group() const { return out_.groups[g_]; }
  Passing& passing(size_t i) { return passing_[i % most_passing]; }

  // All parameters of the group, through all stages. What one stage has asked the processor for, the next one finds in
  // its cache `lag` parameters later, if that is not 0.
  template <size_t lag>
  bool pass(StateCursor& cursor, size_t size) {
    for (size_t i = 0; i < size + (stages - 1) * lag && supported_; ++i) {
      if (i < size) find_state<lag>(cursor, i);
      if (i - lag < size && !check_parameter<lag>(i - lag)) return false;
      if (i - 2 * lag < size && !find_tensors<lag>(cursor, i - 2 * lag)) return false;
      if (i - 3 * lag < size && !check_states<lag>(i - 3 * lag)) return false;
      if (i - 4 * lag < size) read(i - 4 * lag);
    }
    return true;
  }

  template <bool prefetches>
  void find_state(StateCursor& cursor, size_t i) {
    Passing& one = passing(i);
    one.parameter = group().at(i);
    one.own = group().slots.count != 0 ? cursor.at(one.parameter, false) : nullptr;
    if constexpr (prefetches) {
      prefetch(one.parameter);
      prefetch(one.own);
    }
  }

  template <bool prefetches>
  bool check_parameter(size_t i) {
    const Passing& one = passing(i);
    if (!reader_.is_exact(one.parameter)) return false;
    if constexpr (prefetches) {
      native_->prefetch(native_->of(one.parameter));
      if (one.own != nullptr && PyDict_Check(one.own)) {
        const char* const keys = reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(one.own)->ma_keys);
        for (int k = 0; k < 3; ++k) prefetch(keys + k * line);
      }
    }
    return true;
  }

  template <bool prefetches>
  bool find_tensors(StateCursor& cursor, size_t i) {
    Passing& one = passing(i);
    const Slots& slots = group().slots;
    one.gradient = native_->gradient(native_->of(one.parameter));
    if (one.gradient == nullptr) {
      one.slots = 0;
      return true;
    }
    PyObject* const object = native_->object_of(one.gradient);
    if (object != nullptr && !reader_.is_exact(object)) return false;
    if constexpr (prefetches) native_->prefetch(one.gradient);
    one.slots = slots.count;
    if (one.own == nullptr && slots.count != 0) one.own = cursor.at(one.parameter, true);
    find_slots(one.own, slots, one.slot);
    for (int k = 0; prefetches && k < one.slots; ++k) prefetch(one.slot[static_cast<size_t>(k)]);
    return true;
  }

  template <bool prefetches>
  bool check_states(size_t i) {
    const Passing& one = passing(i);
    for (int k = 0; k < one.slots; ++k) {
      PyObject* const value = one.slot[static_cast<size_t>(k)];
      if (value == nullptr) continue;
      if (!reader_.is_exact(value)) return false;
      if constexpr (prefetches) native_->prefetch(native_->of(value));
    }
    return true;
  }

  void read(size_t i) {
    const Passing& one = passing(i);
    if (one.gradient == nullptr) return;
    const Native::Tensor own = native_->of(one.parameter);
    Found found = Found::mismatch;
    if (!native_->is_inference(own)) {
      found = operands_.read(group(), one.slot, [&](int k, TensorView& view) {
        const Native::Tensor tensor = k == of_parameter  ? own
                                      : k == of_gradient ? one.gradient
                                                         : native_->of(one.slot[static_cast<size_t>(k)]);
        return native_->read(tensor, view);
      });
      if (found == Found::ready && !has_state(group(), one.own)) found = Found::missing_state;
    }
    if (found == Found::ready) {
      out_.gradients.push_back(one.gradient);
      add_slots(one.slot);
    }
    conclude(i, one.parameter, found);
  }

  // Whether a value of the dict of states is one: only anchors need none.
  static bool has_state(const GroupRow& group, PyObject* own) {
    if (group.slots.count == 0) return true;
    return own != nullptr ? PyDict_Check(own) : group.slots.count == 1 && group.anchor_key != Py_None;
  }

  void add_slots(const SlotArray& slot) {
    for (int k = 0; k < group().slots.count; ++k) {
      PyObject* const value = slot[static_cast<size_t>(k)];
      if (value != nullptr) out_.objects.push_back(value);
    }
  }

  PyObject* keep(PyObject* object) {
    out_.kept.push_back(py::reinterpret_borrow<py::object>(object));
    return object;
  }

  void find_states(StateCursor& cursor, const GroupRow& group, Parts& one) {
    if (group.slots.count == 0) return;
    PyObject* const own = cursor.at(one.parameter, one.gradient != nullptr);
    one.has_state = has_state(group, own);
    if (own == nullptr || !one.has_state || one.gradient == nullptr) return;
    find_slots(own, group.slots, one.slot);
    for (PyObject* const value : one.slot) {
      if (value != nullptr) keep(value);
    }
  }

  void examine(Parts& one) {
    if (one.gradient == nullptr) return;
    one.supported =
        examine(one.parameter, one.storage[Slots::most]) && examine(one.gradient, one.storage[Slots::most + 1]);
    one.writable = one.supported && !reader_.is_inference(one.parameter);
    for (size_t k = 0; k < Slots::most && one.supported; ++k) {
      if (one.slot[k] != nullptr) one.readable[k] = examine(one.slot[k], one.storage[k]);
    }
  }

  bool examine(PyObject* tensor, PyObject*& storage) {
    if (!is_tensor(tensor)) return false;
    py::object found;
    if (!reader_.examine(tensor, found)) return false;
    storage = found.ptr();
    if (found) out_.kept.push_back(std::move(found));
    return true;
  }

  void read_parts(size_t i, const Parts& one) {
    if (one.gradient == nullptr) return;
    Found found = one.supported ? Found::mismatch : Found::unsupported;
    if (one.supported && one.writable) {
      found = operands_.read(group(), one.slot, [&](int k, TensorView& view) {
        if (k == of_parameter) return reader_.view(one.parameter, one.storage[Slots::most], view);
        if (k == of_gradient) return reader_.view(one.gradient, one.storage[Slots::most + 1], view);
        const auto place = static_cast<size_t>(k);
        return one.readable[place] && reader_.view(one.slot[place], one.storage[place], view);
      });
      if (!one.has_state && found == Found::ready) found = Found::missing_state;
    }
    if (found == Found::ready) {
      out_.objects.push_back(one.gradient);
      add_slots(one.slot);
    }
    conclude(i, one.parameter, found);
  }

  static bool is_tensor(PyObject* object) {
    static PyObject* const type = py::object(py::module_::import("torch").attr("Tensor")).release().ptr();
    return PyObject_IsInstance(object, type) == 1;
  }

  void conclude(size_t i, PyObject* parameter, Found found) {
    switch (found) {
      case Found::nothing:
        return;
      case Found::unsupported:
        supported_ = false;
        failure_.unsupported.push_back(g_);
        return;
      case Found::missing_state:
        failure_.missing_state.emplace_back(g_, i);
        return;
      case Found::mismatch:
        failure_.mismatch.emplace_back(g_, i);
        return;
      case Found::ready:
        break;
    }
    StepNumber t = request_.first_steps.contains({g_, i}) ? 1 : 2;
    Count count = operands_.step;
    if (group().counts_on_device) {
      t = {count.data, count.is_double};
      count = {};
    } else if (count.data != nullptr) {
      t = count.read() + 1;
    }
    out_.plan.add(operands_.operands, t, request_.first_emas.contains({g_, i}));
    out_.changed.push_back({parameter, count, t.known});
    out_.objects.push_back(parameter);
  }

  Collected& out_;
  const Reader& reader_;
  const Native* native_;
  PyObject* state_;
  const Request& request_;
  StepFailure& failure_;
  size_t g_ = 0;
  bool supported_ = true;

  OperandReader operands_;
  Passing passing_[most_passing];
};

// Groups with a parameter that stands twice among all of them: torch steps it twice, one after the other.
void find_duplicates(Collected& collected, Memory& memory, StepFailure& failure) {
  const std::vector<PyObject*>& all = collected.parameters;
  if (all == memory.distinct) return;
  std::unordered_set<PyObject*> seen, twice;
  for (PyObject* const parameter : all) {
    if (!seen.insert(parameter).second) twice.insert(parameter);
  }
  if (twice.empty()) {
    memory.distinct = all;
    return;
  }
  size_t i = 0;
  for (size_t g = 0; g < collected.ends.size(); ++g) {
    bool has = false;
    for (; i < collected.ends[g]; ++i) has = has || twice.contains(all[i]);
    if (has) failure.unsupported.push_back(g);
  }
}

}  // namespace

void Collected::clear() {
  groups.clear();
  plan.clear();
  changed.clear();
  objects.clear();
  gradients.clear();
  kept.clear();
  parameters.clear();
  ends.clear();
}

void collect(Collected& collected, const Reader& reader, Memory& memory, const py::dict& state, const Request& request,
             StepFailure& failure) {
  Collector collector(collected, reader, state.ptr(), request, failure);
  if (reader.native() == nullptr || !collector.collect_natively()) {
    std::vector<GroupRow> groups = std::move(collected.groups);
    collected.clear();
    collected.groups = std::move(groups);
    failure = {};
    collector.collect_with_python();
  }
  find_duplicates(collected, memory, failure);
}

}  // namespace onepass
