#include "cpu/parallel.hpp"

#include <pthread.h>

#include <algorithm>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace onepass {
namespace {

bool forked = false;

// libgomp's threads are not copied by fork, and a parallel region in the child would wait for them forever.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

bool in_forked_child() { return forked; }

int available_threads() {
#ifdef _OPENMP
  if (!forked && !omp_in_parallel()) return omp_get_max_threads();
#endif
  return 1;
}

void parallel_for(int64_t total, int64_t grain, [[maybe_unused]] int threads,
                  const std::function<void(int64_t, int64_t)>& work) {
  const int64_t pieces = (total + grain - 1) / grain;
  const auto piece = [&](int64_t i) { work(i * grain, std::min(total, (i + 1) * grain)); };
#ifdef _OPENMP
  threads = static_cast<int>(std::min<int64_t>(threads, pieces));
  if (threads > 1) {
    if (pieces == threads) {
#pragma omp parallel for schedule(static, 1) num_threads(threads)
      for (int64_t i = 0; i < pieces; ++i) piece(i);
    } else {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
      for (int64_t i = 0; i < pieces; ++i) piece(i);
    }
    return;
  }
#endif
  for (int64_t i = 0; i < pieces; ++i) piece(i);
}

}  // namespace onepass
