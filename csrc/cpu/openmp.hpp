// torch's OpenMP runtime, by the functions that all of them have (GNU's names, which LLVM's and Intel's answer to,
// too). Nothing is linked: wheels of torch carry theirs under names of their own, and a second one would be a second
// pool.
#pragma once

namespace onepass {

struct OpenMP {
  // Calls body(data) on `threads` threads at most, and returns when all are through.
  void (*parallel)(void (*body)(void*), void* data, unsigned threads, unsigned flags) = nullptr;
  int (*max_threads)() = nullptr;
  int (*in_parallel)() = nullptr;
  int (*thread)() = nullptr;     // number of the calling one
  int (*team_size)() = nullptr;  // threads that the body is called on

  // Looked for once. Null if torch has none.
  static const OpenMP* of_torch();
  // The file it lies in, for people; empty if there is none.
  static const char* file();
};

}  // namespace onepass
