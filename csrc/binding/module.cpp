// The Python face of the extension; python/onepass/_core.pyi describes it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "binding/augment.hpp"
#include "binding/bandwidth.hpp"
#include "binding/gradients.hpp"
#include "binding/step.hpp"
#include "cpu/dispatch.hpp"
#include "cpu/huge_pages.hpp"
#include "cpu/openmp.hpp"
#include "cpu/parallel.hpp"
#include "plan/plan.hpp"
#include "rules/program.hpp"
#include "torch/reader.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

PYBIND11_MODULE(_core, m) {
  m.doc() = "onepass: the compiled core";
  // Classes are local to this module: the extension for devices has its own of the same names.
  onepass::isa();  // an impossible ONEPASS_CPU fails here, at import

  py::class_<onepass::Reader>(m, "Reader", py::module_local())
      .def(py::init<py::tuple, py::function, std::string>(), py::kw_only(), "tensor_types"_a, "is_plain"_a, "way"_a)
      .def_property_readonly("way", &onepass::Reader::way);

  py::class_<onepass::Memory>(m, "Memory", py::module_local())
      .def(py::init())
      .def_readwrite("steps_applied", &onepass::Memory::steps_applied);

  py::class_<onepass::Clip>(m, "Clip", py::module_local())
      .def(py::init([](double max_norm, bool skip_nonfinite, double unscale) {
             return onepass::Clip{max_norm, skip_nonfinite, unscale};
           }),
           "max_norm"_a, "skip_nonfinite"_a, "unscale"_a)
      .def_readonly("max_norm", &onepass::Clip::max_norm)
      .def_readonly("skip_nonfinite", &onepass::Clip::skip_nonfinite)
      .def_readwrite("unscale", &onepass::Clip::unscale)
      .def_readwrite("norm", &onepass::Clip::norm)
      .def_readwrite("coefficient", &onepass::Clip::coefficient)
      .def_readwrite("skipped", &onepass::Clip::skipped);

  py::class_<onepass::StepFailure>(m, "StepFailure", py::module_local())
      .def_readonly("unsupported", &onepass::StepFailure::unsupported)
      .def_readonly("missing_state", &onepass::StepFailure::missing_state)
      .def_readonly("mismatch", &onepass::StepFailure::mismatch);

  m.def(
      "step",
      [](onepass::Reader& reader, onepass::Memory& memory, const py::list& groups, const py::dict& state, bool dry,
         const py::object& clip, const onepass::ParameterSet& first_steps, const onepass::ParameterSet& first_emas,
         uint64_t seed, bool counts) {
        return onepass::step(reader, memory, groups, state,
                             {dry, onepass::clip_of(clip), first_steps, first_emas, seed,
                              static_cast<uint64_t>(memory.steps_applied), counts});
      },
      "reader"_a, "memory"_a, "groups"_a, "state"_a, "dry"_a, "clip"_a, "first_steps"_a, "first_emas"_a, "seed"_a,
      "counts"_a);
  m.def("drop_gradients", &onepass::drop_gradients, "reader"_a, "groups"_a);
  m.def("sorted_gradients", &onepass::sorted_gradients, "reader"_a, "groups"_a);
  m.def("remember", &onepass::remember, "reader"_a, "memory"_a, "groups"_a, "rows"_a, "varying"_a, "seed"_a);
  m.def(
      "repeat",
      [](onepass::Reader& reader, onepass::Memory& memory, const py::list& groups, const py::dict& state,
         const py::object& clip) { return onepass::repeat(reader, memory, groups, state, onepass::clip_of(clip)); },
      "reader"_a, "memory"_a, "groups"_a, "state"_a, "clip"_a);
  m.def(
      "measure",
      [](onepass::Reader& reader, const py::list& params, onepass::Clip& clip) {
        onepass::Memory none;
        onepass::measure(reader, none, params, clip, {});
      },
      "reader"_a, "params"_a, "clip"_a);
  m.def("quantize", &onepass::quantize_state, "reader"_a, "values"_a, "codes"_a, "scales"_a, "kind"_a, "back"_a);
  m.def(
      "evaluate",
      [](const py::bytes& program, double steps) {
        return onepass::evaluate(reinterpret_cast<const onepass::Instruction*>(PyBytes_AS_STRING(program.ptr())),
                                 steps);
      },
      "program"_a, "steps"_a);
  m.def("use_huge_pages", &onepass::use_huge_pages, "address"_a, "bytes"_a);

  py::class_<onepass::Stream>(m, "Stream", py::module_local())
      .def(py::init<onepass::Reader&, const py::list&>(), "reader"_a, "tensors"_a)
      .def("run", &onepass::Stream::run);

  onepass::bind_augment(m);

  m.def("specs", [] {
    py::dict all;
    for (size_t i = 0; i < onepass::rules().size(); ++i) {
      const onepass::RuleInfo& rule = onepass::rules()[i];
      all[rule.name] = py::make_tuple(i, py::tuple(py::cast(rule.state)), py::tuple(py::cast(rule.hypers)));
    }
    return all;
  });
  m.def("number_slots", [] {
    py::dict slots;
    int slot = 0;
    for (const char* name : onepass::Group::number_names) slots[name] = slot++;
    return slots;
  });
  m.def("isa", [] { return onepass::isa().name; });
  m.def("isas", [] {
    py::dict supported;
    for (const onepass::Isa& isa : onepass::built_isas()) supported[isa.name] = isa.supported();
    return supported;
  });
  m.def("available_threads", [] {
    onepass::sync_num_threads();
    return onepass::available_threads();
  });
  m.def("openmp_runtime", &onepass::OpenMP::file);
  m.def("in_forked_child", &onepass::in_forked_child);
  m.attr("quantized_block") = onepass::quantized_block;
  m.attr("version") = ONEPASS_VERSION;
  m.attr("compiler") = ONEPASS_COMPILER;
}
