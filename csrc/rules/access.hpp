// How loops reach the elements of operands, and the combinations of storage types that have loops of their own.
#pragma once

#include "rules/numeric.hpp"
#include "rules/segment.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

template <class T>
constexpr Dtype dtype_of{};
template <>
constexpr Dtype dtype_of<float> = Dtype::f32;
template <>
constexpr Dtype dtype_of<double> = Dtype::f64;
template <>
constexpr Dtype dtype_of<bf16> = Dtype::bf16;
template <>
constexpr Dtype dtype_of<f16> = Dtype::f16;

template <class T>
struct Plain {
  using Element = T;
  T* at;
  ONEPASS_DEVICE explicit Plain(void* data, void* = nullptr) : at(static_cast<T*>(data)) {}
  ONEPASS_ELEMENT auto load(int64_t i) const { return widen(at[i]); }
  template <class C>
  ONEPASS_ELEMENT void store(int64_t i, C x) const {
    narrow(x, at[i]);
  }
};

// A bf16 parameter and the 16 bits that it lacks of its float32.
struct Split {
  using Element = bf16;
  bf16* at;
  int16_t* low;
  ONEPASS_DEVICE Split(void* data, void* rest) : at(static_cast<bf16*>(data)), low(static_cast<int16_t*>(rest)) {}
  ONEPASS_ELEMENT float load(int64_t i) const { return join(at[i], low[i]); }
  ONEPASS_ELEMENT void store(int64_t i, float x) const { split(x, at[i], low[i]); }
};

// The compute type, and how a parameter, its gradient and its states are stored.
template <class Compute, class Param, class Grad, class State>
struct Types {
  using C = Compute;
  using P = Param;
  using G = Grad;
  using S = State;
};
template <class... T>
struct TypesList {};
using F32 = Types<float, Plain<float>, float, float>;
using F64 = Types<double, Plain<double>, double, double>;
using Common = TypesList<F32, F64, Types<float, Plain<bf16>, bf16, bf16>, Types<float, Plain<f16>, f16, f16>,
                         Types<float, Plain<float>, float, bf16>, Types<float, Plain<bf16>, bf16, float>,
                         Types<float, Split, bf16, float>, Types<float, Split, bf16, bf16>>;

struct Combination {
  Dtype param, grad, state;
  bool split;
};

template <class List>
struct CombinationsOf;
template <class... T>
struct CombinationsOf<TypesList<T...>> {
  static constexpr int count = sizeof...(T);
  static constexpr Combination table[] = {{dtype_of<typename T::P::Element>, dtype_of<typename T::G>,
                                           dtype_of<typename T::S>, __is_same(typename T::P, Split)}...};
};

// The place of a segment's types in Common, or -1.
inline int combination_of(const Segment& segment) {
  const bool split = segment.has(master) && segment.dtype[master] == Dtype::i16;
  if (segment.has(master) && !split) return -1;
  using All = CombinationsOf<Common>;
  for (int i = 0; i < All::count; ++i) {
    const Combination& c = All::table[i];
    bool fits = c.param == segment.dtype[param] && c.grad == segment.dtype[grad] && c.split == split;
    for (int k = 0; k < segment.states; ++k) fits = fits && c.state == segment.dtype[first_state + k];
    if (fits) return i;
  }
  return -1;
}

}  // namespace
}  // namespace onepass
