// The random bits of stochastic rounding: element i of the flat range takes 16 bits of the random block number i / 8.
#pragma once

#include "rules/philox.hpp"
#include "rules/segment.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr uint64_t draws_per_block = 8;

ONEPASS_DEVICE inline Block counter_of(uint64_t number, const Scalars& scalars) {
  return {{static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32), static_cast<uint32_t>(scalars.draw),
           static_cast<uint32_t>(scalars.draw >> 32)}};
}

ONEPASS_DEVICE inline Block draw(uint64_t number, const Scalars& scalars) {
  return philox(counter_of(number, scalars), static_cast<uint32_t>(scalars.seed),
                static_cast<uint32_t>(scalars.seed >> 32));
}

// Bits of the element at `place` in the block.
ONEPASS_ELEMENT uint16_t bits_for(const Block& block, uint64_t place) {
  return static_cast<uint16_t>(block.word[place / 2] >> (place % 2 * 16));
}

// The bits of consecutive elements, from the first of block `number`.
template <int blocks>
inline void draw_many(uint64_t number, const Scalars& scalars, uint16_t* __restrict bits) {
  uint32_t word[4][blocks];
  for (int b = 0; b < blocks; ++b) {
    const Block counter = counter_of(number + static_cast<uint64_t>(b), scalars);
    for (int w = 0; w < 4; ++w) word[w][b] = counter.word[w];
  }
  philox(word, static_cast<uint32_t>(scalars.seed), static_cast<uint32_t>(scalars.seed >> 32));
  for (int b = 0; b < blocks; ++b) {
    const Block block{{word[0][b], word[1][b], word[2][b], word[3][b]}};
    for (uint64_t i = 0; i < draws_per_block; ++i) {
      bits[static_cast<uint64_t>(b) * draws_per_block + i] = bits_for(block, i);
    }
  }
}

}  // namespace
}  // namespace onepass
