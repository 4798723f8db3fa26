// One block of a segment. Dense tensors whose types a sweep knows go straight through it; everything else goes
// through one tile by tile.
#pragma once

#include "cpu/loops.hpp"
#include "cpu/tile.hpp"
#include "rules/element.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// A tile of a segment, in the compute type C.
template <class C>
class TiledUpdate {
 public:
  TiledUpdate(const Segment& segment, const Scalars& scalars)
      : segment_(segment),
        given_(scalars),
        swept_(scalars),
        asks_ahead_(segment.quantized && segment.strided == nullptr && segment.count > largest_cached),
        codes_{{segment, scalars, 0}, {segment, scalars, 1}, {segment, scalars, 2}} {
    constexpr bool single = sizeof(C) == sizeof(float);
    sweep_ = sweep_of(segment, variant_of(segment, scalars), single ? 0 : 1);
    if (segment.has(anchor)) {
      swept_.scale = 1;
      swept_.clamp = infinity;
      swept_.subgradient = 0;
    }
    const Dtype compute = single ? Dtype::f32 : Dtype::f64;
    for (int k = 0; k < master; ++k) {
      const bool altered = (k == grad && segment.has(anchor)) || (k == param && segment.has(master));
      buffered_[k] = altered || segment.strided != nullptr || segment.dtype[k] != compute;
    }
  }

  void update(int64_t at, int64_t n) {
    for (int k = 0; k < master; ++k) {
      if (!segment_.has(k)) continue;
      data_[k] = buffered_[k] ? buffer_[k] : static_cast<C*>(segment_.data[k]) + at;
      if (buffered_[k]) read(k, at, n);
    }
    if (asks_ahead_ && at + 2 * tile <= segment_.count) prefetch_next(at + tile);
    if (segment_.has(anchor)) pull_to_anchor(data_[param], data_[grad], data_[anchor], n);
    void* pointers[max_operands] = {};
    for (int k = 0; k <= ema; ++k) pointers[k] = data_[k];
    sweep_(pointers, n, swept_);
    for (int k = 0; k < master; ++k) {
      if (segment_.has(k) && buffered_[k] && k != grad && k != anchor) write(k, at, n);
    }
  }

 private:
  // The tile at `at`: sweeps of tiles are too short to ask ahead themselves.
  void prefetch_next(int64_t at) const {
    for (int k = 0; k < first_state + segment_.states; ++k) {
      const int64_t size = size_of(segment_.dtype[k]);
      const char* const next = static_cast<const char*>(segment_.data[k]) + at * size;
      for (int64_t byte = 0; byte < tile * size; byte += line) prefetch(next + byte);
    }
  }

  // The first steps of an element, which the sweep then leaves out.
  void pull_to_anchor(C* __restrict p, C* __restrict g, const C* __restrict to, int64_t n) const {
    const Preparation<C> prepare(given_);
    const Pull<C> pull(given_);
    for (int64_t i = 0; i < n; ++i) {
      g[i] = prepare(p[i], g[i]);
      pull(p[i], g[i], to[i]);
    }
  }

  void read(int k, int64_t at, int64_t n) {
    if (segment_.dtype[k] == Dtype::u8) {
      load_quantized(segment_, k, at, n, codes_[k - first_state].coding, buffer_[k]);
      return;
    }
    load(segment_, k, at, n, buffer_[k]);
    if (k != param || !segment_.has(master)) return;
    if (segment_.dtype[master] == Dtype::i16) {
      int16_t low[tile];
      load_raw(segment_, master, at, n, low);
      for (int64_t i = 0; i < n; ++i) {
        bf16 high;
        narrow(buffer_[param][i], high);
        buffer_[param][i] = join(high, low[i]);
      }
    } else {  // the float32 counts as long as the parameter is its rounding: others may have written the parameter
      C whole[tile];
      load(segment_, master, at, n, whole);
      for (int64_t i = 0; i < n; ++i) {
        if (is_rounding(whole[i], buffer_[param][i])) buffer_[param][i] = whole[i];
      }
    }
  }

  void write(int k, int64_t at, int64_t n) {
    C* const values = buffer_[k];
    if (segment_.dtype[k] == Dtype::u8) {
      const Codes& codes = codes_[k - first_state];
      store_quantized(segment_, k, at, n, codes.coding, codes.dithers, values);
    } else if (k == param && segment_.has(master) && segment_.dtype[master] == Dtype::i16) {
      bf16 high[tile];
      int16_t low[tile];
      for (int64_t i = 0; i < n; ++i) split(static_cast<float>(values[i]), high[i], low[i]);
      store_raw(segment_, param, at, n, high);
      store_raw(segment_, master, at, n, low);
    } else if (k == param && segment_.has(master)) {
      store(segment_, master, at, n, values);
      store(segment_, param, at, n, values);
    } else if (k == param && given_.stochastic && segment_.dtype[param] == Dtype::bf16) {
      store_stochastic<bf16>(segment_, given_, at, n, values);
    } else if (k == param && given_.stochastic && segment_.dtype[param] == Dtype::f16) {
      store_stochastic<f16>(segment_, given_, at, n, values);
    } else {
      store(segment_, k, at, n, values);
    }
  }

  // Of a state, if it is in 8 bits.
  struct Codes {
    Coding coding;
    const Dithers& dithers;
    Codes(const Segment& segment, const Scalars& scalars, int state)
        : coding(state_kind(segment.rule, state), scalars.draw), dithers(kept_dithers(state)) {
      if (segment.quantized && state < segment.states) kept_dithers(state).make(coding, segment.count);
    }
  };
  static Dithers& kept_dithers(int state) {
    thread_local Dithers kept[max_states];
    return kept[state];
  }

  const Segment& segment_;
  const Scalars& given_;
  Scalars swept_;  // without what comes before an anchor
  bool asks_ahead_;
  Codes codes_[max_states];
  Sweep sweep_;
  bool buffered_[master];
  C* data_[master] = {};
  alignas(64) C buffer_[master][tile];
};

template <class C>
void update_tiled(const Segment& segment, const Scalars& scalars, int64_t begin, int64_t end) {
  if (segment.quantized) {
    const auto to_block = [&](int64_t at) {
      const int64_t up = (at + quantized_block - 1) / quantized_block * quantized_block;
      return up < segment.count ? up : segment.count;
    };
    begin = to_block(begin);
    end = to_block(end);
  }
  TiledUpdate<C> tiled(segment, scalars);
  for (int64_t at = begin; at < end; at += tile) tiled.update(at, end - at < tile ? end - at : tile);
}

inline void update(const Segment& segment, const Scalars& scalars, int64_t begin, int64_t end) {
  if (const Sweep direct = direct_sweep(segment, scalars)) {
    void* data[max_operands] = {};
    for (int k = 0; k < max_operands; ++k) {
      if (segment.has(k)) data[k] = static_cast<char*>(segment.data[k]) + begin * size_of(segment.dtype[k]);
    }
    direct(data, end - begin, scalars);
  } else if (segment.dtype[param] == Dtype::f64) {
    update_tiled<double>(segment, scalars, begin, end);
  } else {
    update_tiled<float>(segment, scalars, begin, end);
  }
}

}  // namespace
}  // namespace onepass
