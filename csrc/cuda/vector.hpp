// Several elements of an operand at once, in loads and stores of 16 bytes.
#pragma once

#include <type_traits>

#include "rules/access.hpp"

#ifdef __CUDACC__
#define ONEPASS_UNROLL _Pragma("unroll")
#define ONEPASS_ROLLED _Pragma("unroll 1")
#define ONEPASS_UNROLL_SINGLE _Pragma("unroll (sizeof(C) == sizeof(float) ? 8 : 1)")  // double has too few registers
#define ONEPASS_CALLED __noinline__
#else
#define ONEPASS_UNROLL
#define ONEPASS_ROLLED
#define ONEPASS_UNROLL_SINGLE
#define ONEPASS_CALLED
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

// A GPU stops at an address that is not aligned; a host that stands in for it must, too.
template <class Word>
ONEPASS_DEVICE inline void expect_alignment([[maybe_unused]] const void* address) {
#ifndef __CUDA_ARCH__
  if (reinterpret_cast<uintptr_t>(address) % sizeof(Word) != 0) __builtin_trap();
#endif
}

template <class T, int n>
ONEPASS_DEVICE inline Pack<T, n> load_pack(const T* from) {
  using Word = typename Pack<T, n>::Word;
  expect_alignment<Word>(from);
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
  expect_alignment<Word>(to);
  const Raw raw = bits_as<Raw>(pack);
  ONEPASS_UNROLL
  for (int i = 0; i < Pack<T, n>::words; ++i) reinterpret_cast<Word*>(to)[i] = raw.word[i];
}

// Vectors of an operand: as they are in memory, until an element is asked for.
template <class Access>
struct Vectors;

template <class T>
struct Vectors<Plain<T>> : Plain<T> {
  using Plain<T>::Plain;

  template <int n>
  struct Vector {
    Pack<T, n> pack;
    ONEPASS_DEVICE auto get(int j) const { return widen(pack.at[j]); }
    template <class C>
    ONEPASS_DEVICE void set(int j, C x) {
      narrow(x, pack.at[j]);
    }
  };
  template <int n>
  ONEPASS_DEVICE Vector<n> load_vector(int64_t i) const {
    return {load_pack<T, n>(this->at + i)};
  }
  template <int n>
  ONEPASS_DEVICE void store_vector(int64_t i, const Vector<n>& vector) const {
    store_pack(this->at + i, vector.pack);
  }
};

template <>
struct Vectors<Split> : Split {
  using Split::Split;

  template <int n>
  struct Vector {
    Pack<bf16, n> high;
    Pack<int16_t, n> rest;
    ONEPASS_DEVICE float get(int j) const { return join(high.at[j], rest.at[j]); }
    ONEPASS_DEVICE void set(int j, float x) { split(x, high.at[j], rest.at[j]); }
  };
  template <int n>
  ONEPASS_DEVICE Vector<n> load_vector(int64_t i) const {
    return {load_pack<bf16, n>(at + i), load_pack<int16_t, n>(low + i)};
  }
  template <int n>
  ONEPASS_DEVICE void store_vector(int64_t i, const Vector<n>& vector) const {
    store_pack(at + i, vector.high);
    store_pack(low + i, vector.rest);
  }
};

constexpr size_t least(size_t a, size_t b) { return a < b ? a : b; }

// Elements per vector: those of the narrowest operand fill 16 bytes.
template <class T>
constexpr int vector_width =
    static_cast<int>(16 / least(sizeof(typename T::P::Element), least(sizeof(typename T::G), sizeof(typename T::S))));

}  // namespace
}  // namespace onepass
