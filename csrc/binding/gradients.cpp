#include "binding/gradients.hpp"

namespace py = pybind11;

namespace onepass {
namespace {

// Calls visit(parameter) for each. What it does may run Python, which may change the lists.
template <class Visit>
void each_parameter(const py::list& groups, const Visit& visit) {
  for (size_t g = 0; g < groups.size(); ++g) {
    const py::object group = groups[g], params = group["params"];
    if (PyList_CheckExact(params.ptr())) {
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(params.ptr()); ++i) {
        visit(py::reinterpret_borrow<py::object>(PyList_GET_ITEM(params.ptr(), i)));
      }
    } else {
      for (const py::handle parameter : params) visit(py::reinterpret_borrow<py::object>(parameter));
    }
  }
}

}  // namespace

void drop_gradients(const Reader& reader, const py::list& groups) {
  each_parameter(groups, [&](const py::object& parameter) { reader.drop_gradient(parameter.ptr()); });
}

py::tuple sorted_gradients(const Reader& reader, const py::list& groups) {
  py::list plain, others;
  each_parameter(groups, [&](const py::object& parameter) {
    const py::object gradient = py::reinterpret_steal<py::object>(reader.gradient(parameter.ptr()));
    if (gradient.is_none()) return;
    TensorView view;
    const bool is_plain = reader.is_exact(gradient.ptr()) && reader.read(gradient.ptr(), view) &&
                          !gradient.attr("requires_grad").cast<bool>();
    (is_plain ? plain : others).append(gradient);
  });
  return py::make_tuple(plain, others);
}

}  // namespace onepass
