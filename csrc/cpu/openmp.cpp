#include "cpu/openmp.hpp"

#include <dlfcn.h>

#include "torch/library.hpp"

namespace onepass {

const OpenMP* OpenMP::of_torch() {
  static OpenMP found;
  static const bool whole =
      find_in_torch("GOMP_parallel", found.parallel) && find_in_torch("omp_get_max_threads", found.max_threads) &&
      find_in_torch("omp_in_parallel", found.in_parallel) && find_in_torch("omp_get_thread_num", found.thread) &&
      find_in_torch("omp_get_num_threads", found.team_size);
  return whole ? &found : nullptr;
}

const char* OpenMP::file() {
  Dl_info info{};
  const bool found = of_torch() != nullptr && dladdr(reinterpret_cast<void*>(of_torch()->parallel), &info) != 0;
  return found ? info.dli_fname : "";
}

}  // namespace onepass
