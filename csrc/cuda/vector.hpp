// Several elements of an operand at once, in loads and stores of 16 bytes.
#pragma once

#include "access.hpp"

#ifdef __CUDACC__
#define ONEPASS_UNROLL _Pragma("unroll")
#else
#define ONEPASS_UNROLL
#endif

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

struct alignas(16) Words {
  uint32_t word[4];
};
struct alignas(8) HalfWords {
  uint32_t word[2];
};

// `n` elements that lie together: in words of 16 bytes, or one of 8.
template <class T, int n>
struct Pack {
  static_assert(sizeof(T) * n % 16 == 0 || sizeof(T) * n == 8);
  using Word = std::conditional_t<sizeof(T) * n == 8, HalfWords, Words>;
  static constexpr int words = static_cast<int>(sizeof(T) * n / sizeof(Word));
  T at[n];
};

// The alignment that a pack asks for, in bytes.
template <class T, int n>
constexpr uintptr_t pack_alignment = sizeof(typename Pack<T, n>::Word);

template <class T, int n>
ONEPASS_DEVICE inline Pack<T, n> load_pack(const T* from) {
  using Word = typename Pack<T, n>::Word;
  struct Raw {
    Word word[Pack<T, n>::words];
  } raw;
  ONEPASS_UNROLL
  for (int i = 0; i < Pack<T, n>::words; ++i) raw.word[i] = reinterpret_cast<const Word*>(from)[i];
  return bits_as<Pack<T, n>>(raw);
}

template <class T, int n>
ONEPASS_DEVICE inline void store_pack(T* to, const Pack<T, n>& pack) {
  using Word = typename Pack<T, n>::Word;
  struct Raw {
    Word word[Pack<T, n>::words];
  };
  const Raw raw = bits_as<Raw>(pack);
  ONEPASS_UNROLL
  for (int i = 0; i < Pack<T, n>::words; ++i) reinterpret_cast<Word*>(to)[i] = raw.word[i];
}

template <class Access>
struct Vectors;

template <class T>
struct Vectors<Plain<T>> : Plain<T> {
  using Plain<T>::Plain;
  using Plain<T>::load;
  using Plain<T>::store;
  template <class C, int n>
  ONEPASS_DEVICE void load(int64_t i, C (&out)[n]) const {
    const Pack<T, n> pack = load_pack<T, n>(this->at + i);
    ONEPASS_UNROLL
    for (int j = 0; j < n; ++j) out[j] = static_cast<C>(widen(pack.at[j]));
  }
  template <class C, int n>
  ONEPASS_DEVICE void store(int64_t i, const C (&in)[n]) const {
    Pack<T, n> pack;
    ONEPASS_UNROLL
    for (int j = 0; j < n; ++j) narrow(in[j], pack.at[j]);
    store_pack(this->at + i, pack);
  }
};

template <>
struct Vectors<Split> : Split {
  using Split::load;
  using Split::Split;
  using Split::store;
  template <int n>
  ONEPASS_DEVICE void load(int64_t i, float (&out)[n]) const {
    const Pack<bf16, n> high = load_pack<bf16, n>(at + i);
    const Pack<int16_t, n> rest = load_pack<int16_t, n>(low + i);
    ONEPASS_UNROLL
    for (int j = 0; j < n; ++j) out[j] = join(high.at[j], rest.at[j]);
  }
  template <int n>
  ONEPASS_DEVICE void store(int64_t i, const float (&in)[n]) const {
    Pack<bf16, n> high;
    Pack<int16_t, n> rest;
    ONEPASS_UNROLL
    for (int j = 0; j < n; ++j) split(in[j], high.at[j], rest.at[j]);
    store_pack(at + i, high);
    store_pack(low + i, rest);
  }
};

// Elements per vector: those of the narrowest operand fill 16 bytes.
template <class T>
constexpr int vector_width =
    static_cast<int>(16 / std::min({sizeof(typename T::P::Element), sizeof(typename T::G), sizeof(typename T::S)}));

}  // namespace
}  // namespace onepass
