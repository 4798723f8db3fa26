#include "cpu/huge_pages.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace onepass {

void use_huge_pages([[maybe_unused]] uintptr_t address, [[maybe_unused]] uintptr_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t{2} << 20;
  const uintptr_t first = (address + page - 1) / page * page;
  const uintptr_t last = (address + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace onepass
