// The gather kernel of one instruction set: compiled once for each, with ONEPASS_ISA naming it.
#include "augment/kernel.hpp"

#include "cpu/kernels.hpp"

#define ONEPASS_JOIN(a, b) a##b
#define ONEPASS_NAME(a, b) ONEPASS_JOIN(a, b)

void onepass::ONEPASS_NAME(gather_, ONEPASS_ISA)(const Warp& warp, int64_t begin, int64_t end) {
  gather(warp, begin, end);
}
