#include "torch/library.hpp"

#include <dlfcn.h>

void* onepass::find_in_torch(const char* name) {
  void* const library = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY);
  return library != nullptr ? dlsym(library, name) : nullptr;
}
