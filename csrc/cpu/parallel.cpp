#include "cpu/parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>

#include "cpu/openmp.hpp"

namespace onepass {
namespace {

bool forked = false;

// The runtime's threads are not copied by fork, and a parallel region in the child would wait for them forever.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

bool in_forked_child() { return forked; }

int available_threads() {
  const OpenMP* const openmp = OpenMP::of_torch();
  return openmp != nullptr && !forked && openmp->in_parallel() == 0 ? openmp->max_threads() : 1;
}

void parallel_for(int64_t total, int64_t grain, int threads, const std::function<void(int64_t, int64_t)>& work) {
  const int64_t pieces = (total + grain - 1) / grain;
  const auto piece = [&](int64_t i) { work(i * grain, std::min(total, (i + 1) * grain)); };
  threads = static_cast<int>(std::min<int64_t>(threads, pieces));
  if (threads <= 1) {
    for (int64_t i = 0; i < pieces; ++i) piece(i);
    return;
  }
  const OpenMP& openmp = *OpenMP::of_torch();
  std::atomic<int64_t> next = 0;
  auto share = [&] {
    if (pieces == threads) {  // each thread its own one, which may still lie in its cache
      for (int64_t i = openmp.thread(); i < pieces; i += openmp.team_size()) piece(i);
    } else {
      for (int64_t i = next++; i < pieces; i = next++) piece(i);
    }
  };
  const auto body = [](void* data) { (*static_cast<decltype(share)*>(data))(); };
  openmp.parallel(body, &share, static_cast<unsigned>(threads), 0);
}

}  // namespace onepass
