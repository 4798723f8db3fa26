// A tile: some hundred elements of a segment, brought into contiguous buffers of the compute type where they are not so
// in memory already.
#pragma once

#include "rules/numeric.hpp"
#include "rules/quantize.hpp"
#include "rules/segment.hpp"
#include "rules/stochastic.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr int64_t tile = 256;  // elements: whole blocks of 8-bit states, and all buffers together fit an L1 cache
static_assert(tile % quantized_block == 0);

// Calls visit(first element's offset, its place in the tile, length, stride) for each run along the innermost
// dimension that elements [begin, begin + n) of operand `k` consist of.
template <class Visit>
inline void each_run(const Segment& segment, int k, int64_t begin, int64_t n, const Visit& visit) {
  if (segment.strided == nullptr) {
    visit(begin, int64_t{0}, n, int64_t{1});
    return;
  }
  const Strided& view = *segment.strided;
  const int inner = view.dims - 1;
  for (int64_t done = 0; done < n;) {
    const int64_t left = view.shape[inner] - (begin + done) % view.shape[inner];
    const int64_t length = left < n - done ? left : n - done;
    visit(offset_of(view, k, begin + done), done, length, view.stride[k][inner]);
    done += length;
  }
}

// Copies operand `k` between memory and a tile; `copy(element in memory, element in the tile)` does one.
template <class T, class U, class Copy>
inline void transfer(const Segment& segment, int k, int64_t begin, int64_t n, U* __restrict in_tile, const Copy& copy) {
  T* const base = static_cast<T*>(segment.data[k]);
  each_run(segment, k, begin, n, [&](int64_t offset, int64_t at, int64_t length, int64_t stride) {
    T* __restrict const memory = base + offset;
    U* __restrict const place = in_tile + at;
    if (stride == 1) {
      for (int64_t i = 0; i < length; ++i) copy(memory[i], place[i]);
    } else {
      for (int64_t i = 0; i < length; ++i) copy(memory[i * stride], place[i]);
    }
  });
}

template <class T, class C>
void load_as(const Segment& segment, int k, int64_t begin, int64_t n, C* out) {
  transfer<T>(segment, k, begin, n, out, [](const T& x, C& y) { y = static_cast<C>(widen(x)); });
}

template <class T, class C>
void store_as(const Segment& segment, int k, int64_t begin, int64_t n, C* in) {
  transfer<T>(segment, k, begin, n, in, [](T& x, const C& y) { narrow(y, x); });
}

template <class T>
void load_raw(const Segment& segment, int k, int64_t begin, int64_t n, T* out) {
  transfer<T>(segment, k, begin, n, out, [](const T& x, T& y) { y = x; });
}

template <class T>
void store_raw(const Segment& segment, int k, int64_t begin, int64_t n, T* in) {
  transfer<T>(segment, k, begin, n, in, [](T& x, const T& y) { x = y; });
}

// By Dtype, the floating ones.
template <class C>
constexpr void (*loads[])(const Segment&, int, int64_t, int64_t, C*) = {load_as<float, C>, load_as<double, C>,
                                                                        load_as<bf16, C>, load_as<f16, C>};
template <class C>
constexpr void (*stores[])(const Segment&, int, int64_t, int64_t, C*) = {store_as<float, C>, store_as<double, C>,
                                                                         store_as<bf16, C>, store_as<f16, C>};

template <class C>
inline void load(const Segment& segment, int k, int64_t begin, int64_t n, C* out) {
  loads<C>[static_cast<int>(segment.dtype[k])](segment, k, begin, n, out);
}

template <class C>
inline void store(const Segment& segment, int k, int64_t begin, int64_t n, C* in) {
  stores<C>[static_cast<int>(segment.dtype[k])](segment, k, begin, n, in);
}

// The codes of a dense state, where they lie; null for others.
inline uint8_t* codes_in_place(const Segment& segment, int k, int64_t begin) {
  return segment.strided == nullptr ? static_cast<uint8_t*>(segment.data[k]) + begin : nullptr;
}

// A state in 8 bits: `begin` is the start of a block.
template <class C>
inline void load_quantized(const Segment& segment, int k, int64_t begin, int64_t n, const Coding& coding, C* out) {
  uint8_t gathered[tile];
  const uint8_t* codes = codes_in_place(segment, k, begin);
  if (codes == nullptr) {
    load_raw(segment, k, begin, n, gathered);
    codes = gathered;
  }
  const float* const scale = segment.scale[k - first_state] + begin / quantized_block;
  for (int64_t at = 0; at < n; at += quantized_block) {
    const int64_t length = n - at < quantized_block ? n - at : quantized_block;
    dequantize(codes + at, length, scale[at / quantized_block], coding, out + at);
  }
}

template <class C>
inline void store_quantized(const Segment& segment, int k, int64_t begin, int64_t n, const Coding& coding,
                            const Dithers& dithers, const C* in) {
  uint8_t gathered[tile];
  uint8_t* const in_place = codes_in_place(segment, k, begin);
  uint8_t* const codes = in_place != nullptr ? in_place : gathered;
  float* const scale = segment.scale[k - first_state] + begin / quantized_block;
  for (int64_t at = 0; at < n; at += quantized_block) {
    const int64_t length = n - at < quantized_block ? n - at : quantized_block;
    scale[at / quantized_block] = quantize(in + at, length, coding, dithers, codes + at);
  }
  if (in_place == nullptr) store_raw(segment, k, begin, n, gathered);
}

// Stochastic rounding of a tile.
template <class T, class C>
inline void store_stochastic(const Segment& segment, const Scalars& scalars, int64_t begin, int64_t n, C* in) {
  const uint64_t first = static_cast<uint64_t>(segment.start + begin);
  const uint64_t skip = first % draws_per_block;
  constexpr int few = 16, most = tile / draws_per_block + 8;  // one more than a tile takes, and whole vectors of them
  uint16_t random[most * draws_per_block];
  const bool is_small = skip + static_cast<uint64_t>(n) <= few * draws_per_block;
  (is_small ? draw_many<few> : draw_many<most>)(first / draws_per_block, scalars, random);
  T rounded[tile];
  for (int64_t i = 0; i < n; ++i)
    narrow(static_cast<float>(in[i]), uint32_t{random[skip + static_cast<uint64_t>(i)]}, rounded[i]);
  store_raw(segment, param, begin, n, rounded);
}

}  // namespace
}  // namespace onepass
