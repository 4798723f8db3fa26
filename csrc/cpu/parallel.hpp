// Threads: those of torch's pool.
#pragma once

#include <cstdint>
#include <functional>

namespace onepass {

// Threads that a parallel region of the calling thread may use: torch.set_num_threads decides. One inside another
// parallel region, and one in a forked child, where the pool's threads do not exist.
int available_threads();

// True in a process that was forked after this extension was loaded.
bool in_forked_child();

// Calls work(begin, end) for consecutive ranges of at most `grain` that cover [0, total), on up to `threads` threads.
// `work` must not throw.
void parallel_for(int64_t total, int64_t grain, int threads, const std::function<void(int64_t, int64_t)>& work);

}  // namespace onepass
