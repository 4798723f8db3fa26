// The Python face of the extension; python/onepass/_core.pyi describes it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "augment.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"
#include "plan.hpp"
#include "reader.hpp"
#include "step.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

PYBIND11_MODULE(_core, m) {
  m.doc() = "onepass: the compiled core";
  onepass::isa();  // an impossible ONEPASS_CPU fails here, at import

  py::class_<onepass::Reader>(m, "Reader")
      .def(py::init<py::tuple, py::function, py::tuple, bool>(), py::kw_only(), "tensor_types"_a, "is_plain"_a,
           "dtypes"_a, "use_dlpack"_a)
      .def_property_readonly("uses_dlpack", &onepass::Reader::uses_dlpack);

  py::class_<onepass::Trouble>(m, "Trouble")
      .def_readonly("uncovered", &onepass::Trouble::uncovered)
      .def_readonly("repair", &onepass::Trouble::repair)
      .def_readonly("invalid", &onepass::Trouble::invalid);

  m.def("step", &onepass::step, "reader"_a, "groups"_a, "state"_a, "fresh"_a);

  onepass::bind_augment(m);

  m.def("rules", [] {
    py::dict numbers;
    for (size_t i = 0; i < onepass::rules().size(); ++i) numbers[onepass::rules()[i].name] = i;
    return numbers;
  });
  m.def("isa", [] { return onepass::isa().name; });
  m.def("isas", [] {
    py::dict supported;
    for (const onepass::Isa& isa : onepass::built_isas()) supported[isa.name] = isa.supported();
    return supported;
  });
  m.def("available_threads", &onepass::available_threads);
  m.attr("version") = ONEPASS_VERSION;
}
