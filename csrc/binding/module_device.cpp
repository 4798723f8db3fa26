// The Python face of the extension for a device; python/onepass/_cuda.pyi describes it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "binding/step.hpp"
#include "cuda/engine.hpp"

#ifdef ONEPASS_EMULATED
#include "cuda/emulated.hpp"
constexpr bool emulated = true;
#else
constexpr bool emulated = false;
#include "cuda/runtime.hpp"
#endif

namespace py = pybind11;
using namespace pybind11::literals;

namespace onepass {
namespace {

// Where tensors of a device say that they are.
int place_of(int device) { return emulated ? on_host : device; }

// Has torch allocate: as tensors, which stay with the optimizer.
class TorchAllocator : public Allocator {
 public:
  explicit TorchAllocator(py::function make) : make_(std::move(make)) {}
  std::byte* on_device(size_t bytes) override { return make(bytes, false); }
  std::byte* on_host(size_t bytes) override { return make(bytes, true); }

 private:
  std::byte* make(size_t bytes, bool host) {
    const py::object tensor = make_(bytes, host);
    kept_.append(tensor);
    return reinterpret_cast<std::byte*>(tensor.attr("data_ptr")().cast<uintptr_t>());
  }
  py::function make_;
  py::list kept_;
};

struct Owner {
  explicit Owner(py::function make) : allocator(std::move(make)), engine(allocator) {}
  TorchAllocator allocator;
  Engine engine;
};

Memory new_memory(py::function make) {
  const auto owner = std::make_shared<Owner>(std::move(make));
  Memory memory;
  memory.engine = std::shared_ptr<Engine>(owner, &owner->engine);
  return memory;
}

// A number of a GradScaler, on the device, or null.
const float* scaler_number(const Reader& reader, const py::object& tensor, int device) {
  if (tensor.is_none()) return nullptr;
  TensorView view;
  if (!reader.read(tensor.ptr(), view) || view.dtype != Dtype::f32 || view.count() != 1 ||
      view.device != place_of(device)) {
    throw py::value_error("grad_scale, found_inf: a float32 tensor of one element on the device of the parameters");
  }
  return static_cast<const float*>(view.data);
}

StepOptions options_for(const Reader& reader, int device, uintptr_t stream, const py::object& grad_scale,
                        const py::object& found_inf, int64_t applied, bool count) {
  StepOptions options;
  options.count = count;
  options.stream = {device, reinterpret_cast<void*>(stream)};
  options.grad_scale = scaler_number(reader, grad_scale, device);
  options.found_inf = scaler_number(reader, found_inf, device);
  options.applied = applied;
  return options;
}

std::optional<StepFailure> do_step(Reader& reader, Memory& memory, const py::list& groups, const py::dict& state,
                                   bool dry, const py::object& clip, const ParameterSet& first_steps,
                                   const ParameterSet& first_emas, uint64_t seed, int64_t applied, int device,
                                   uintptr_t stream, const py::object& grad_scale, const py::object& found_inf,
                                   bool count) {
  const StepOptions options = options_for(reader, device, stream, grad_scale, found_inf, applied, count);
  return step(reader, memory, groups, state,
              {dry, clip_of(clip), first_steps, first_emas, seed, static_cast<uint64_t>(applied), false,
               place_of(device), &options});
}

void do_measure(Reader& reader, Memory& memory, const py::list& params, Clip& clip, int device, uintptr_t stream,
                const py::object& grad_scale, const py::object& found_inf) {
  const StepOptions options = options_for(reader, device, stream, grad_scale, found_inf, 0, false);
  measure(reader, memory, params, clip, {.device = place_of(device), .options = &options});
}

py::object outcome(Memory& memory, int device, uintptr_t stream) {
  if (!memory.engine->counts()) return py::none();
  const StepResult found = memory.engine->outcome({device, reinterpret_cast<void*>(stream)});
  return py::make_tuple(found.skip, found.norm, found.coefficient, found.finite != 0, found.applied, found.skipped);
}

}  // namespace
}  // namespace onepass

PYBIND11_MODULE(ONEPASS_MODULE, m) {
  using namespace onepass;
  m.doc() = "onepass: the compiled core for a device";

  py::class_<Reader>(m, "Reader", py::module_local())
      .def(py::init<py::tuple, py::function, std::string>(), py::kw_only(), "tensor_types"_a, "is_plain"_a, "way"_a);
  py::class_<Memory>(m, "Memory", py::module_local())
      .def(py::init(&new_memory), "allocate"_a)
      .def_property_readonly("counts", [](const Memory& memory) { return memory.engine->counts(); })
      .def_property_readonly("sent", [](const Memory& memory) { return memory.engine->sent(); });
  py::class_<Clip>(m, "Clip", py::module_local())
      .def(py::init([](double max_norm, bool skip_nonfinite, double unscale) {
             return Clip{max_norm, skip_nonfinite, unscale};
           }),
           "max_norm"_a, "skip_nonfinite"_a, "unscale"_a)
      .def_readonly("norm", &Clip::norm)
      .def_readonly("coefficient", &Clip::coefficient)
      .def_readonly("skipped", &Clip::skipped);
  py::class_<StepFailure>(m, "StepFailure", py::module_local())
      .def_readonly("unsupported", &StepFailure::unsupported)
      .def_readonly("missing_state", &StepFailure::missing_state)
      .def_readonly("mismatch", &StepFailure::mismatch);

  m.def("step", &do_step, "reader"_a, "memory"_a, "groups"_a, "state"_a, "dry"_a, "clip"_a, "first_steps"_a,
        "first_emas"_a, "seed"_a, "applied"_a, "device"_a, "stream"_a, "grad_scale"_a, "found_inf"_a, "count"_a);
  m.def("measure", &do_measure, "reader"_a, "memory"_a, "params"_a, "clip"_a, "device"_a, "stream"_a, "grad_scale"_a,
        "found_inf"_a);
  m.def("outcome", &outcome, "memory"_a, "device"_a, "stream"_a);
#ifdef ONEPASS_EMULATED
  m.def("defer", &device::defer, "on"_a);
  m.def("run_waiting", &device::run_waiting);
  m.def("capture", &device::capture, "on"_a);
  m.def("is_capturing", [] { return device::is_capturing({}); });
  m.def("replay", &device::replay);
#else
  m.def("driver_problem", &device::driver_problem);
  m.def("can_run", &device::can_run, "device"_a);
  m.attr("architectures") = ONEPASS_ARCHITECTURES;
#endif
}
