// Advice to the operating system about memory.
#pragma once

#include <cstdint>

namespace onepass {

// Asks for 2 MiB pages in a range that has not been touched yet. Only a hint: wrong addresses are ignored.
void use_huge_pages(uintptr_t address, uintptr_t bytes);

}  // namespace onepass
