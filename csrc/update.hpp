// One stretch of a segment. Dense tensors of a common combination of types go straight through a sweep; everything else
// goes through it tile by tile, with the other steps of an update before and after.
#pragma once

#include "element.hpp"
#include "sweep.hpp"
#include "tile.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// A tile of a segment, in the compute type C.
template <class C>
class Staged {
 public:
  Staged(const Segment& segment, const Scalars& scalars) : segment_(segment), given_(scalars), swept_(scalars) {
    prepares_ = needs_preparation(scalars) || segment.has(anchor);
    if (prepares_) swept_.scale = 1;
    constexpr bool single = sizeof(C) == sizeof(float);
    sweep_ = sweeps[single ? 0 : 1][segment.rule];
    const Dtype compute = single ? Dtype::f32 : Dtype::f64;
    for (int k = 0; k < master; ++k) {
      const bool altered = (k == grad && prepares_) || (k == param && segment.has(master));
      buffered_[k] = altered || segment.strided != nullptr || segment.dtype[k] != compute;
    }
  }

  void update(int64_t at, int64_t n) {
    for (int k = 0; k < master; ++k) {
      if (!segment_.has(k)) continue;
      data_[k] = buffered_[k] ? buffer_[k] : static_cast<C*>(segment_.data[k]) + at;
      if (buffered_[k]) read(k, at, n);
    }
    C* const p = data_[param];
    if (prepares_) prepare_gradient(p, data_[grad], n);
    if (segment_.has(anchor)) pull_to_anchor(p, data_[grad], data_[anchor], n);
    void* pointers[max_operands] = {};
    for (int k = 0; k < ema; ++k) pointers[k] = data_[k];
    sweep_(pointers, n, swept_);
    if (given_.threshold != 0) soft_threshold(p, n);
    if (segment_.has(ema)) average(p, data_[ema], n);
    for (int k = 0; k < master; ++k) {
      if (segment_.has(k) && buffered_[k] && k != grad && k != anchor) write(k, at, n);
    }
  }

 private:
  void prepare_gradient(const C* __restrict p, C* __restrict g, int64_t n) const {
    const Preparation<C> prepare(given_);
    for (int64_t i = 0; i < n; ++i) g[i] = prepare(p[i], g[i]);
  }
  void pull_to_anchor(C* __restrict p, C* __restrict g, const C* __restrict to, int64_t n) const {
    const Pull<C> pull(given_);
    for (int64_t i = 0; i < n; ++i) pull(p[i], g[i], to[i]);
  }
  void soft_threshold(C* __restrict p, int64_t n) const {
    const SoftThreshold<C> threshold(given_);
    for (int64_t i = 0; i < n; ++i) p[i] = threshold(p[i]);
  }
  void average(const C* __restrict p, C* __restrict mean, int64_t n) const {
    const Average<C> average(given_);
    for (int64_t i = 0; i < n; ++i) mean[i] = average(p[i], mean[i]);
  }

  Coding coding(int k) const { return {kind_of_state(segment_.rule, k - first_state), given_.draw}; }

  void read(int k, int64_t at, int64_t n) {
    if (segment_.dtype[k] == Dtype::u8) {
      load_quantised(segment_, k, at, n, coding(k), buffer_[k]);
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
      store_quantised(segment_, k, at, n, coding(k), values);
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

  const Segment& segment_;
  const Scalars& given_;
  Scalars swept_;  // without what prepare_gradient has done
  Sweep sweep_;
  bool prepares_;
  bool buffered_[master];
  C* data_[master] = {};
  alignas(64) C buffer_[master][tile];
};

template <class C>
void staged(const Segment& segment, const Scalars& scalars, int64_t begin, int64_t end) {
  if (segment.quantised) {
    const auto to_block = [&](int64_t at) {
      const int64_t up = (at + quantised_block - 1) / quantised_block * quantised_block;
      return up < segment.count ? up : segment.count;
    };
    begin = to_block(begin);
    end = to_block(end);
  }
  Staged<C> stage(segment, scalars);
  for (int64_t at = begin; at < end; at += tile) stage.update(at, end - at < tile ? end - at : tile);
}

inline void update(const Segment& segment, const Scalars& scalars, int64_t begin, int64_t end) {
  const int direct = is_simple(segment, scalars) ? combination_of(segment) : -1;
  if (direct >= 0) {
    void* data[max_operands] = {};
    for (int k = 0; k < max_operands; ++k) {
      if (segment.has(k)) data[k] = static_cast<char*>(segment.data[k]) + begin * size_of(segment.dtype[k]);
    }
    sweeps[direct][segment.rule](data, end - begin, scalars);
  } else if (segment.dtype[param] == Dtype::f64) {
    staged<double>(segment, scalars, begin, end);
  } else {
    staged<float>(segment, scalars, begin, end);
  }
}

}  // namespace
}  // namespace onepass
