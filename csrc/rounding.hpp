// The random bits of stochastic rounding: element i of the flat range takes 16 bits of the random block number i / 8.
#pragma once

#include "philox.hpp"
#include "segment.hpp"

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

constexpr uint64_t draws_per_block = 8;

ONEPASS_DEVICE inline Block draw(uint64_t number, const Scalars& scalars) {
  return philox({{static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32),
                  static_cast<uint32_t>(scalars.draw), static_cast<uint32_t>(scalars.draw >> 32)}},
                static_cast<uint32_t>(scalars.seed), static_cast<uint32_t>(scalars.seed >> 32));
}

// Bits of the element at `place` in the block.
ONEPASS_DEVICE inline uint16_t bits_for(const Block& block, uint64_t place) {
  return static_cast<uint16_t>(block.word[place / 2] >> (place % 2 * 16));
}

}  // namespace
}  // namespace onepass
