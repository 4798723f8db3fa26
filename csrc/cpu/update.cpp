// The update kernel of one instruction set: compiled once for each, with ONEPASS_ISA naming it.
#include "cpu/update.hpp"

#include "cpu/kernels.hpp"

void onepass::ONEPASS_KERNEL(update)(const Segment& segment, const Scalars& scalars, int64_t begin, int64_t end) {
  update(segment, scalars, begin, end);
}
