// What marks functions that run on the GPU, too: under another compiler than CUDA's that means nothing.
#pragma once

#ifdef __CUDACC__
#define ONEPASS_DEVICE __host__ __device__
#else
#define ONEPASS_DEVICE
#endif

// A function of one element. It is always part of the loop that calls it, however large the source file has become: a
// loop with a call in it is no vector code.
#define ONEPASS_ELEMENT __attribute__((always_inline)) ONEPASS_DEVICE inline
