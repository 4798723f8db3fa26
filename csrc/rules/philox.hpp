// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as
// 1, 2, 3" (SC 2011): four random words for every (counter, key), and nothing to carry from one draw to the next.
#pragma once

#include <cstdint>

#include "rules/device.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

struct Block {
  uint32_t word[4];
};

// One of its ten rounds, from 0.
ONEPASS_ELEMENT Block philox_round(const Block& counter, uint32_t key0, uint32_t key1, uint32_t round) {
  const uint64_t even = uint64_t{0xD2511F53u} * counter.word[0];
  const uint64_t odd = uint64_t{0xCD9E8D57u} * counter.word[2];
  key0 += round * 0x9E3779B9u;  // the golden ratio
  key1 += round * 0xBB67AE85u;  // the square root of 3, less 1
  return {{static_cast<uint32_t>(odd >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(odd),
           static_cast<uint32_t>(even >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(even)}};
}
constexpr uint32_t philox_rounds = 10;

ONEPASS_DEVICE inline Block philox(Block counter, uint32_t key0, uint32_t key1) {
  for (uint32_t round = 0; round < philox_rounds; ++round) counter = philox_round(counter, key0, key1, round);
  return counter;
}

// Many counters at once, their words apart so that compilers make vectors of them.
template <int n>
inline void philox(uint32_t (&word)[4][n], uint32_t key0, uint32_t key1) {
  for (uint32_t round = 0; round < philox_rounds; ++round) {
    for (int i = 0; i < n; ++i) {
      const Block next = philox_round({{word[0][i], word[1][i], word[2][i], word[3][i]}}, key0, key1, round);
      for (int w = 0; w < 4; ++w) word[w][i] = next.word[w];
    }
  }
}

// Uniform in [0, 1): the upper 53 bits of two words, as many as a double holds.
ONEPASS_DEVICE inline double uniform(uint32_t high, uint32_t low) {
  const uint64_t bits = (uint64_t{high} << 32 | low) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace
}  // namespace onepass
