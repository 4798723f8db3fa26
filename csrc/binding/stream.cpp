#include "stream.hpp"

namespace py = pybind11;

namespace onepass {

Stream::Stream(Reader& reader, const py::list& tensors) : kept_(tensors.attr("copy")()) {
  plan_.begin_group(Group{});
  for (const py::handle row : kept_) {
    const auto operands = row.cast<py::tuple>();
    const auto count = static_cast<int>(operands.size());
    if (count < first_state || count > max_operands) throw py::value_error("tensors: 2 to 5 in each tuple");
    TensorView views[max_operands];
    for (int k = 0; k < count; ++k) {
      const py::handle tensor = operands[static_cast<size_t>(k)];
      if (!reader.read(tensor.ptr(), views[k]) || (views[k].data == nullptr && views[k].count() != 0)) {
        throw py::value_error("tensors: the kernels cannot read one of them");
      }
      if (!same_shape(views[param], views[k]) || views[k].dtype != views[param].dtype || !free_of_overlap(views[k])) {
        throw py::value_error("tensors: those of a tuple must have one shape and dtype");
      }
    }
    plan_.add(views, count, 1);
  }
  if (!plan_.is_dense()) throw py::value_error("tensors: those of a tuple must be dense, of one layout");
}

void Stream::run() const {
  py::gil_scoped_release release;
  plan_.stream(isa());
}

}  // namespace onepass
