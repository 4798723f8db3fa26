// Asking the processor for memory ahead of its use.
#pragma once

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// Into which cache, as __builtin_prefetch counts.
constexpr int first_level = 3, second_level = 2;

// The empty asm does nothing, but counts as an effect: gcc 12 takes functions that only prefetch for such as do
// nothing, and leaves out the calls of them.
template <int cache = first_level>
inline void prefetch(const void* address) {
  __builtin_prefetch(address, 0, cache);
  asm volatile("");
}

}  // namespace
}  // namespace onepass
