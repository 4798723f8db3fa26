#include "torch/tensor_layout.hpp"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>

namespace py = pybind11;

namespace onepass {
namespace {

const void* pointer(uintptr_t address) { return reinterpret_cast<const void*>(address); }
const void* impl_of(const py::object& tensor) { return pointer(tensor.attr("_cdata").cast<uintptr_t>()); }
const void* storage_of(const py::object& tensor) {
  return pointer(tensor.attr("untyped_storage")().attr("_cdata").cast<uintptr_t>());
}
uintptr_t address_of(const void* at) { return reinterpret_cast<uintptr_t>(at); }

// Bytes that may be searched: what the allocator has given to the object.
size_t size_of_impl(const py::object& tensor) { return malloc_usable_size(const_cast<void*>(impl_of(tensor))); }
size_t size_of_storage(const py::object& tensor) { return malloc_usable_size(const_cast<void*>(storage_of(tensor))); }

template <class Size>
size_t least_size(const std::vector<py::object>& tensors, const Size& size) {
  size_t least = SIZE_MAX;
  for (const py::object& tensor : tensors) least = std::min(least, size(tensor));
  return least;
}

// The offset of the one word that `matches`; nowhere if there is none or several.
template <class Matches>
size_t only_offset(size_t size, const Matches& matches) {
  size_t found = TensorLayout::nowhere;
  for (size_t offset = 0; offset + sizeof(uintptr_t) <= size; offset += sizeof(uintptr_t)) {
    if (!matches(offset)) continue;
    if (found != TensorLayout::nowhere) return TensorLayout::nowhere;
    found = offset;
  }
  return found;
}

// The offset from start(tensor) at which every tensor has value(tensor), the bits in `ignored` aside.
template <class Start, class Value>
size_t offset_in_all(const std::vector<py::object>& tensors, size_t size, const Start& start, const Value& value,
                     uintptr_t ignored = 0) {
  return only_offset(size, [&](size_t offset) {
    return std::all_of(tensors.begin(), tensors.end(), [&](const py::object& tensor) {
      return (word_at(start(tensor), offset) & ~ignored) == value(tensor);
    });
  });
}

py::object torch() { return py::module_::import("torch"); }

py::object zeros(const char* dtype, const char* device = "cpu") {
  return torch().attr("zeros")(2, py::arg("dtype") = torch().attr(dtype), py::arg("device") = device);
}

// The imaginary part of a conjugate is a lazily negated view: one word, alike in all plain ones, differs in one bit.
void find_negation(TensorLayout& layout) {
  std::vector<py::object> alive;
  std::vector<const void*> plain, negated;
  for (int i = 0; i < 4; ++i) {
    const py::object z = zeros("complex64");
    alive.push_back(z.attr("imag"));
    plain.push_back(impl_of(alive.back()));
    alive.push_back(z.attr("conj")().attr("imag"));
    negated.push_back(impl_of(alive.back()));
  }
  if (!alive.back().attr("is_neg")().cast<bool>()) return;
  layout.keys_in_impl = only_offset(least_size(alive, size_of_impl), [&](size_t offset) {
    const uintptr_t keys = word_at(plain[0], offset), bit = keys ^ word_at(negated[0], offset);
    if (__builtin_popcountll(bit) != 1) return false;
    for (size_t k = 0; k < plain.size(); ++k) {
      if (word_at(plain[k], offset) != keys || word_at(negated[k], offset) != (keys | bit)) return false;
    }
    layout.negated = bit;
    return true;
  });
}

// Tensors of inference mode lack what autograd needs: the bits of all others of which they have none.
void find_inference(TensorLayout& layout) {
  if (layout.keys_in_impl == TensorLayout::nowhere) return;
  const py::object plain = zeros("float32"), mode = torch().attr("inference_mode")();
  mode.attr("__enter__")();
  const py::object inference = zeros("float32");
  mode.attr("__exit__")(py::none(), py::none(), py::none());
  if (!inference.attr("is_inference")().cast<bool>()) return;
  const uintptr_t keys = word_at(impl_of(plain), layout.keys_in_impl);
  layout.tracked = keys & ~word_at(impl_of(inference), layout.keys_in_impl);
}

// A new tensor whose TensorImpl lies, as far as the allocator goes along, where all bytes were `before`.
py::object zeros_on(unsigned char before, size_t size) {
  std::vector<char*> blocks;
  for (int i = 0; i < 7; ++i) {
    blocks.push_back(static_cast<char*>(std::malloc(size)));
    volatile char* const bytes = blocks.back();
    for (size_t k = 0; bytes != nullptr && k < size; ++k) bytes[k] = static_cast<char>(before);
  }
  for (char* const block : blocks) std::free(block);
  return zeros("float32");
}

// The word that is the same in tensors that are alike but for their numbers, and another one for each dtype and device;
// apart from bits that nobody writes, which still show what was in their place before.
void find_type(TensorLayout& layout) {
  std::vector<py::object> alive;
  std::vector<const void*> impls;
  const auto add = [&](py::object tensor) { impls.push_back(impl_of(alive.emplace_back(std::move(tensor)))); };
  for (const char* const dtype : {"float32", "float64", "bfloat16", "float16", "int16", "uint8"}) {
    for (int i = 0; i < 2; ++i) add(zeros(dtype));
  }
  for (int i = 0; i < 2; ++i) add(zeros("float32", "meta"));
  const size_t kinds = impls.size() / 2;
  const size_t size = least_size(alive, size_of_impl);
  for (int i = 0; i < 8; ++i) add(zeros_on(i % 2 == 0 ? 0 : 0xFF, size));
  layout.type_in_impl = only_offset(least_size(alive, size_of_impl), [&](size_t offset) {
    uintptr_t unwritten = 0;
    for (size_t i = 2 * kinds; i < impls.size(); ++i) {
      unwritten |= word_at(impls[i], offset) ^ word_at(impls[0], offset);
    }
    for (size_t a = 0; a < 2 * kinds; ++a) {
      for (size_t b = 0; b < a; ++b) {
        const uintptr_t difference = word_at(impls[a], offset) ^ word_at(impls[b], offset);
        if (((difference & ~unwritten) == 0) != (a / 2 == b / 2)) return false;
      }
    }
    layout.type_bits = ~unwritten;
    return true;
  });
}

// Bits that torch sets where it has been told that nobody may ask for the memory to write to. At least one of them is
// set for every reason there is to look closer, such as a lazy clone, which shares its memory until it is written to.
void find_guard(TensorLayout& layout) {
  const py::object internal = torch().attr("_C");
  if (!py::hasattr(torch(), "_lazy_clone") || !py::hasattr(internal, "_set_throw_on_mutable_data_ptr")) return;
  const py::object original = zeros("float32"), clone = torch().attr("_lazy_clone")(original),
                   closed = zeros("float32");
  const size_t size = least_size({original, clone, closed}, size_of_storage);
  std::vector<uintptr_t> before;
  for (size_t offset = 0; offset + sizeof(uintptr_t) <= size; offset += sizeof(uintptr_t)) {
    before.push_back(word_at(storage_of(closed), offset));
  }
  internal.attr("_set_throw_on_mutable_data_ptr")(closed);
  const auto changed = [&](size_t offset) {
    return word_at(storage_of(closed), offset) ^ before[offset / sizeof(uintptr_t)];
  };
  const size_t found = only_offset(size, [&](size_t offset) { return changed(offset) != 0; });
  if (found == TensorLayout::nowhere) return;
  layout.guarded = changed(found);
  if ((before[found / sizeof(uintptr_t)] & layout.guarded) != 0) return;
  for (const py::object& lazy : {original, clone}) {
    if ((word_at(storage_of(lazy), found) & layout.guarded) == 0) return;
  }
  layout.flags_in_storage = found;
}

}  // namespace

std::vector<py::object> TensorLayout::samples() {
  const auto floats = [](int count) {
    return torch().attr("arange")(count, py::arg("dtype") = torch().attr("float32"), py::arg("device") = "cpu");
  };
  const py::object plain = floats(6);
  const py::object parameter = torch().attr("nn").attr("Parameter")(plain.attr("clone")());
  parameter.attr("grad") = plain.attr("clone")();
  const py::object part = floats(200).attr("narrow")(0, 11, 105).attr("view")(3, 5, 7);
  const py::object foreign = torch().attr("frombuffer")(py::module_::import("builtins").attr("bytearray")(24),
                                                        py::arg("dtype") = torch().attr("float32"));
  return {plain, parameter, parameter.attr("grad"), plain.attr("view")(2, 3).attr("t")(), part, foreign};
}

TensorLayout TensorLayout::find() {
  const std::vector<py::object> tensors = samples();
  const size_t object_size = static_cast<size_t>(Py_TYPE(tensors[0].ptr())->tp_basicsize);
  const auto object = [](const py::object& tensor) { return tensor.ptr(); };
  const auto number = [](const char* method) {
    return [method](const py::object& tensor) { return tensor.attr(method)().cast<uintptr_t>(); };
  };
  const size_t impl_size = least_size(tensors, size_of_impl), storage_size = least_size(tensors, size_of_storage);
  TensorLayout out;
  out.impl_in_object =
      offset_in_all(tensors, object_size, object, [](const py::object& tensor) { return address_of(impl_of(tensor)); });
  out.object_in_impl =
      offset_in_all(tensors, impl_size, impl_of, [](const py::object& tensor) { return address_of(tensor.ptr()); }, 3);
  find_negation(out);
  find_type(out);
  out.storage_in_impl = offset_in_all(tensors, impl_size, impl_of,
                                      [](const py::object& tensor) { return address_of(storage_of(tensor)); });
  out.dims_in_impl = offset_in_all(tensors, impl_size, impl_of, number("dim"));
  out.offset_in_impl = offset_in_all(tensors, impl_size, impl_of, number("storage_offset"));
  out.data_in_storage = offset_in_all(tensors, storage_size, storage_of, [](const py::object& tensor) {
    return tensor.attr("untyped_storage")().attr("data_ptr")().cast<uintptr_t>();
  });
  out.bytes_in_storage = offset_in_all(tensors, storage_size, storage_of, [](const py::object& tensor) {
    return tensor.attr("untyped_storage")().attr("nbytes")().cast<uintptr_t>();
  });
  find_inference(out);
  find_guard(out);
  return out;
}

}  // namespace onepass
