// Asking the processor for memory ahead of its use.
#pragma once

#include <cstdint>

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

// The hardware's prefetchers stop at the end of a page: loops over large tensors ask for what comes next themselves, so
// many bytes ahead (the best of 1, 2 and 4 KiB), a cache line at a time.
constexpr int64_t ahead = 1024, line = 64;

}  // namespace
}  // namespace onepass
