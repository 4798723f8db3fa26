#include "binding/bandwidth.hpp"

#include "cpu/execute.hpp"

namespace py = pybind11;

namespace onepass {

Stream::Stream(const Reader& reader, const py::list& tensors) : kept_(tensors.attr("copy")()) {
  plan_.begin_group(Group{});
  for (const py::handle row : kept_) {
    const auto operands = row.cast<py::tuple>();
    const auto count = static_cast<int>(operands.size());
    if (count < first_state || count > first_state + max_states) throw py::value_error("tensors: 2 to 5 in each tuple");
    Operands found;
    found.states = count - first_state;
    const TensorView& p = found.view[param];
    for (int k = 0; k < count; ++k) {
      TensorView& view = found.view[k];
      const py::handle tensor = operands[static_cast<size_t>(k)];
      if (!reader.read(tensor.ptr(), view) || !is_floating(view) || (view.data == nullptr && view.count() != 0)) {
        throw py::value_error("tensors: the kernels cannot read one of them");
      }
      if (!same_shape(p, view) || view.dtype != p.dtype || !free_of_overlap(view)) {
        throw py::value_error("tensors: those of a tuple must have one shape and dtype");
      }
      found.has[k] = true;
      found.same_strides = found.same_strides && same_strides(p, view);
    }
    plan_.add(found, 1, false);
  }
  if (!plan_.is_dense()) throw py::value_error("tensors: those of a tuple must be dense, of one layout");
}

void Stream::run() const {
  py::gil_scoped_release release;
  stream(plan_, isa());
}

}  // namespace onepass
