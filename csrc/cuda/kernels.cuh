// The kernels: what emulated.cpp does in loops, in blocks of threads.
#pragma once

#include "cuda/finalize.hpp"
#include "cuda/general.hpp"
#include "cuda/kernels.hpp"
#include "cuda/typed.hpp"

namespace onepass {
namespace {  // internal linkage: every source file compiles its own

__device__ inline int64_t block() { return blockIdx.x; }
__device__ inline int64_t blocks() { return gridDim.x; }
__device__ inline int thread() { return static_cast<int>(threadIdx.x); }
__device__ inline int lane() { return thread() % warp_lanes; }
__device__ inline int warp() { return thread() / warp_lanes; }
constexpr int warps = block_threads / warp_lanes;
constexpr unsigned all_lanes = 0xffffffffu;

// So many blocks at least fit on a multiprocessor: enough loads are under way to hide the latency of memory, and few
// registers are spilled.
template <class T>
constexpr int wanted_blocks = sizeof(typename T::C) == sizeof(double) ? 2 : 3;

template <class T>
__global__ void __launch_bounds__(block_threads, wanted_blocks<T>) update_typed(const __grid_constant__ Work work) {
  Typed<T>::update(work, block(), blocks(), thread(), block_threads);
}

__device__ inline uint32_t largest_of_warp(uint32_t x) {
  for (int distance = warp_lanes / 2; distance > 0; distance /= 2) {
    const uint32_t other = __shfl_xor_sync(all_lanes, x, distance);
    x = x > other ? x : other;
  }
  return x;
}

template <class C>
__global__ void __launch_bounds__(block_threads) update_general(const __grid_constant__ Work work) {
  const auto tile = [](const Segment& segment, const Scalars& scalars, int64_t at, int n) {
    const int place = lane() * lane_elements;
    Lane<C> mine(segment, scalars, at + place, elements_of(lane(), n), place);
    mine.compute();
    uint32_t largest[max_states] = {};
    if (segment.quantized) {
      ONEPASS_UNROLL
      for (int k = 0; k < max_states; ++k) {
        if (k < segment.states) largest[k] = largest_of_warp(mine.largest(k));
      }
    }
    mine.write(largest);
  };
  each_tile(work, block(), blocks(), warp(), warps, tile);
}

// As norm.hpp's fold: the result is lane 0's.
__device__ inline LaneSum folded(LaneSum mine) {
  for (int half = norm_lanes / 2; half > 0; half /= 2) mine.sum += __shfl_down_sync(all_lanes, mine.sum, half);
  mine.finite = __all_sync(all_lanes, mine.finite) != 0;
  return mine;
}

}  // namespace
}  // namespace onepass
