// One stretch of a segment. Dense tensors of a common combination of types go straight through a sweep; everything else
// goes through it tile by tile, with the other steps of an update before and after.
#pragma once

#include "sweep.hpp"
#include "tile.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// Scales and limits the gradient and adds that of lambda * |p|: what has to happen before the coupled decay.
template <class C>
inline void prepare_gradient(const C* __restrict p, C* __restrict g, int64_t n, const Scalars& scalars) {
  const C scale = static_cast<C>(scalars.scale), clamp = static_cast<C>(scalars.clamp);
  const C strength = static_cast<C>(scalars.subgradient);
  for (int64_t i = 0; i < n; ++i) {
    const C scaled = scale * g[i];
    const C below = scaled > clamp ? clamp : scaled;  // a NaN passes
    const C limited = below < -clamp ? -clamp : below;
    g[i] = limited + (p[i] > 0 ? strength : p[i] < 0 ? -strength : C{0});
  }
}

// Proximal step of lambda * |p| (soft threshold; Parikh & Boyd, 2014, section 6.5.2): leaves exact zeros.
template <class C>
inline void soft_threshold(C* __restrict p, int64_t n, const Scalars& scalars) {
  const C threshold = static_cast<C>(scalars.threshold);
  for (int64_t i = 0; i < n; ++i) {
    const C above = p[i] > threshold ? p[i] - threshold : C{0};
    const C below = p[i] < -threshold ? p[i] + threshold : above;
    p[i] = p[i] == p[i] ? below : p[i];
  }
}

// Decay towards an anchor (L2-SP; Li, Grandvalet & Davoine, 2018): in the gradient, or decoupled from it.
template <class C>
inline void pull_to_anchor(C* __restrict p, C* __restrict g, const C* __restrict to, int64_t n,
                           const Scalars& scalars) {
  const C slope = static_cast<C>(scalars.anchor_slope), pull = static_cast<C>(scalars.anchor_pull);
  for (int64_t i = 0; i < n; ++i) {
    const C distance = p[i] - to[i];
    g[i] = g[i] + slope * distance;
    p[i] = p[i] - pull * distance;
  }
}

template <class C>
inline void average(const C* __restrict p, C* __restrict mean, int64_t n, const Scalars& scalars) {
  const C weight = static_cast<C>(scalars.ema_weight);
  for (int64_t i = 0; i < n; ++i) mean[i] = mean[i] + weight * (p[i] - mean[i]);
}

// A tile of a segment, in the compute type C.
template <class C>
class Staged {
 public:
  Staged(const Segment& segment, const Scalars& scalars) : segment_(segment), given_(scalars), swept_(scalars) {
    prepares_ = scalars.subgradient != 0 || scalars.clamp < __builtin_inf() || segment.has(anchor);
    if (prepares_) swept_.scale = 1;
    constexpr bool single = sizeof(C) == sizeof(float);
    sweep_ = (single ? combinations[0] : combinations[1]).by_rule[segment.rule];
    const Dtype compute = (single ? combinations[0] : combinations[1]).param;
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
    if (prepares_) prepare_gradient(p, data_[grad], n, given_);
    if (segment_.has(anchor)) pull_to_anchor(p, data_[grad], data_[anchor], n, given_);
    void* pointers[max_operands] = {};
    for (int k = 0; k < ema; ++k) pointers[k] = data_[k];
    sweep_(pointers, n, swept_);
    if (given_.threshold != 0) soft_threshold(p, n, given_);
    if (segment_.has(ema)) average(p, data_[ema], n, given_);
    for (int k = 0; k < master; ++k) {
      if (segment_.has(k) && buffered_[k] && k != grad && k != anchor) write(k, at, n);
    }
  }

 private:
  Coding coding(int k) const { return {state_kinds[segment_.rule][k - first_state], given_.draw}; }

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
        f16 rounded;
        narrow(whole[i], rounded);
        if (widen(rounded) == buffer_[param][i]) buffer_[param][i] = whole[i];
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
  const bool simple = segment.strided == nullptr && !segment.has(ema) && !segment.has(anchor) && !segment.quantised &&
                      scalars.subgradient == 0 && scalars.threshold == 0 && !scalars.stochastic &&
                      !(scalars.clamp < __builtin_inf());
  const Combination* const direct = simple ? combination_of(segment) : nullptr;
  if (direct != nullptr) {
    void* data[max_operands] = {};
    for (int k = 0; k < max_operands; ++k) {
      if (segment.has(k)) data[k] = static_cast<char*>(segment.data[k]) + begin * size_of(segment.dtype[k]);
    }
    direct->by_rule[segment.rule](data, end - begin, scalars);
  } else if (segment.dtype[param] == Dtype::f64) {
    staged<double>(segment, scalars, begin, end);
  } else {
    staged<float>(segment, scalars, begin, end);
  }
}

}  // namespace
}  // namespace onepass
