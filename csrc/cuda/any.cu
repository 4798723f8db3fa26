// The kernels for any types, layout and options, and those of the norm.
#include "cuda/kernels.cuh"

namespace onepass {
namespace {

__global__ void __launch_bounds__(block_threads) measure_blocks(const __grid_constant__ Measurement work) {
  const int64_t mine = block() * warps + warp();
  if (mine * norm_block >= work.elements) return;
  const LaneSum sum = folded(measure_lane(work, mine, lane()));
  if (lane() == 0) work.sums[mine] = {sum.sum, sum.finite};
}

__global__ void __launch_bounds__(block_threads) finalize_scalars_kernel(const __grid_constant__ FinalizeScalars work) {
  if (warp() == 0) {
    const LaneSum sum = folded(sum_of_blocks(work, lane()));
    if (lane() == 0) decide(work, sum.sum, sum.finite);
  }
  __syncthreads();
  prepare(work, thread(), block_threads);
}

}  // namespace

namespace device {

const void* update_kernel(int kernel) {
  if (kernel == any_float) return reinterpret_cast<const void*>(update_general<float>);
  if (kernel == any_double) return reinterpret_cast<const void*>(update_general<double>);
  return common_kernel(kernel);
}
const void* measure_kernel() { return reinterpret_cast<const void*>(measure_blocks); }
const void* finalize_kernel() { return reinterpret_cast<const void*>(finalize_scalars_kernel); }

}  // namespace device
}  // namespace onepass
