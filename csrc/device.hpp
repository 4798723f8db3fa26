// What marks a function that runs on the GPU, too: under another compiler than CUDA's it means nothing.
#pragma once

#ifdef __CUDACC__
#define ONEPASS_DEVICE __host__ __device__
#else
#define ONEPASS_DEVICE
#endif
