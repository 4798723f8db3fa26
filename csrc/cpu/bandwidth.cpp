// The streaming limit of one instruction set: what an update would cost if its arithmetic were free. The kernel reads
// every operand and writes all but the gradient. `nothing` is 0, which the compiler does not know: every store stays,
// and no value changes, so that the limit is measured on the very tensors of the optimizer.
#include "cpu/kernels.hpp"

namespace {

constexpr int64_t element_size[] = {4, 8, 2, 2};  // indexed by Dtype

template <int states>
void stream_dense(uint16_t* const* data, int64_t n, uint16_t nothing) {
  constexpr int operands = onepass::first_state + states;
  uint16_t* at[operands];
  for (int k = 0; k < operands; ++k) at[k] = data[k];
#pragma GCC ivdep  // operands never overlap
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t mark = at[onepass::grad][i] & nothing;
    at[onepass::param][i] ^= mark;
    for (int k = onepass::first_state; k < operands; ++k) at[k][i] ^= mark;
  }
}

}  // namespace

void onepass::ONEPASS_KERNEL(stream)(const Segment& segment, uint16_t nothing, int64_t begin, int64_t end) {
  constexpr void (*kernels[])(uint16_t* const*, int64_t, uint16_t) = {stream_dense<0>, stream_dense<1>, stream_dense<2>,
                                                                      stream_dense<3>};
  const int64_t size = element_size[static_cast<int>(segment.dtype[param])];
  uint16_t* data[first_state + max_states] = {};
  for (int k = 0; k < first_state + segment.states; ++k) {
    data[k] = reinterpret_cast<uint16_t*>(static_cast<char*>(segment.data[k]) + begin * size);
  }
  kernels[segment.states](data, (end - begin) * size / 2, nothing);
}
