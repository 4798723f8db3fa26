#include "binding/augment.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "augment/draw.hpp"
#include "augment/warp.hpp"
#include "cpu/dispatch.hpp"
#include "rules/philox.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace onepass {
namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Indices = py::array_t<int64_t, py::array::c_style>;

// Python's checks come first and say more; these keep memory safe whatever calls.
void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(std::string("warp: ") + what);
}

Fill fill_named(const std::string& name) {
  constexpr const char* names[] = {"nearest", "reflect", "mirror", "wrap", "constant"};
  for (size_t i = 0; i < std::size(names); ++i) {
    if (name == names[i]) return static_cast<Fill>(i);
  }
  throw std::invalid_argument("warp: unknown fill mode");
}

Pixel raw_pixel(py::ssize_t size) {
  require(size == 1 || size == 2 || size == 4 || size == 8, "values must have 1, 2, 4 or 8 bytes");
  return size == 1 ? Pixel::raw8 : size == 2 ? Pixel::raw16 : size == 4 ? Pixel::raw32 : Pixel::raw64;
}

Channel prepare(Pixel pixel, double mean, double std, double cval) {
  const double unit = pixel == Pixel::u8 ? 255 : 1;
  const float m = static_cast<float>(mean), s = static_cast<float>(std);
  const auto normalised = [=](float value) { return (value / static_cast<float>(unit) - m) / s; };
  Channel channel = {static_cast<float>(1 / (unit * std)), static_cast<float>(-mean / std), m, s, 0, {}};
  channel.outside = normalised(static_cast<float>(cval));
  for (int byte = 0; byte < 256; ++byte) channel.table[byte] = normalised(static_cast<float>(byte));
  return channel;
}

// Pictures are (N, C, H, W) with any strides. Without `mean` values are moved as they are, `outside` being the bits of
// the constant fill; with it they are bytes or floats and become normalised floats, `cval` being in their unit.
void warp(const py::array& images, const std::optional<Indices>& rows, const Doubles& matrices, py::array& out,
          const std::string& fill, bool bilinear, const std::optional<std::vector<double>>& mean,
          const std::vector<double>& std, double cval, uint64_t outside) {
  require(images.ndim() == 4 && out.ndim() == 4, "pictures must have four dimensions");
  require(out.writeable() && (out.flags() & py::array::c_style) != 0, "out must be contiguous");
  const int64_t count = out.shape(0);
  require(matrices.ndim() == 3 && matrices.shape(0) == count && matrices.shape(1) == 2 && matrices.shape(2) == 3,
          "one 2x3 matrix for each output");
  if (count == 0) return;
  for (int axis = 1; axis < 4; ++axis) {
    require(images.shape(axis) > 0 && images.shape(axis) <= 1 << 30, "empty or huge picture");
    require(out.shape(axis) > 0 && out.shape(axis) <= 1 << 30, "empty or huge output");
  }
  require(images.shape(1) == out.shape(1), "channels differ");

  Warp w = {};
  std::vector<Channel> channels;
  if (mean) {
    const bool bytes = py::isinstance<py::array_t<uint8_t>>(images);
    require(bytes || py::isinstance<py::array_t<float>>(images), "pictures must be uint8 or float32");
    require(py::isinstance<py::array_t<float>>(out), "out must be float32");
    require(mean->size() == static_cast<size_t>(images.shape(1)) && std.size() == mean->size(), "length of mean, std");
    w.pixel = bytes ? Pixel::u8 : Pixel::f32;
    for (size_t c = 0; c < std.size(); ++c) channels.push_back(prepare(w.pixel, (*mean)[c], std[c], cval));
  } else {
    require(!bilinear && images.itemsize() == out.itemsize(), "raw values are moved to values of the same size");
    w.pixel = raw_pixel(images.itemsize());
  }
  if (rows) {
    require(rows->ndim() == 1 && rows->shape(0) == count, "one row for each output");
    const auto in_range = [&](int64_t row) { return row >= 0 && row < images.shape(0); };
    require(std::all_of(rows->data(), rows->data() + count, in_range), "row out of range");
    w.rows = rows->data();
  } else {
    require(images.shape(0) == count, "one picture for each output");
  }
  w.images = static_cast<const char*>(images.data());
  w.channels = images.shape(1);
  w.height = images.shape(2);
  w.width = images.shape(3);
  w.image_stride = images.strides(0);
  w.channel_stride = images.strides(1);
  w.row_stride = images.strides(2);
  w.column_stride = images.strides(3);
  w.matrices = matrices.data();
  w.fill = fill_named(fill);
  w.bilinear = bilinear;
  w.channel = channels.data();
  w.outside = outside;
  w.out = static_cast<char*>(out.mutable_data());
  w.out_height = out.shape(2);
  w.out_width = out.shape(3);
  const py::gil_scoped_release release;
  warp_all(isa(), w, count);
}

Doubles sample_warps(const Indices& index, uint32_t epoch, std::array<int64_t, 2> size, std::array<int64_t, 2> out_size,
                     double rotation, double shear, std::array<double, 2> shift, std::array<double, 2> zoom,
                     std::array<bool, 2> flip, int64_t padding, uint64_t seed) {
  if (index.ndim() != 1) throw std::invalid_argument("sample_warps: index must have one dimension");
  const Recipe recipe = {rotation, shear,   shift[0], shift[1],    zoom[0],     zoom[1],
                         flip[0],  flip[1], padding,  out_size[0], out_size[1], seed};
  Doubles out({index.shape(0), py::ssize_t{2}, py::ssize_t{3}});
  sample(recipe, size[0], size[1], index.data(), index.shape(0), epoch, out.mutable_data());
  return out;
}

}  // namespace

void bind_augment(py::module_& m) {
  m.def("philox", [](std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    const Block b = philox({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
    return py::make_tuple(b.word[0], b.word[1], b.word[2], b.word[3]);
  });
  m.def("sample_warps", &sample_warps, "index"_a, py::kw_only(), "epoch"_a, "size"_a, "out_size"_a, "rotation"_a,
        "shear"_a, "shift"_a, "zoom"_a, "flip"_a, "padding"_a, "seed"_a);
  m.def(
      "largest_stretch", [](const Doubles& matrices) { return largest_stretch(matrices.data(), matrices.size() / 6); },
      "matrices"_a);
  m.def("warp", &warp, py::kw_only(), "images"_a.noconvert(), "rows"_a.noconvert(), "matrices"_a.noconvert(),
        "out"_a.noconvert(), "fill"_a, "bilinear"_a, "mean"_a, "std"_a, "cval"_a, "outside"_a);
}

}  // namespace onepass
