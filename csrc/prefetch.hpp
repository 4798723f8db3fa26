// Asking the processor for memory ahead of its use.
#pragma once

namespace onepass {
namespace {  // internal linkage: see numeric.hpp

// The empty asm does nothing, but counts as an effect: gcc 12 takes functions that only prefetch for such as do
// nothing, and leaves out the calls of them.
inline void prefetch(const void* address) {
  __builtin_prefetch(address);
  asm volatile("");
}

}  // namespace
}  // namespace onepass
