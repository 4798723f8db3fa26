// What torch has loaded.
#pragma once

namespace onepass {

// The address of a function in libtorch, or in what that was linked with, or null.
void* find_in_torch(const char* name);

// True if it is there.
template <class Function>
bool find_in_torch(const char* name, Function& out) {
  out = reinterpret_cast<Function>(find_in_torch(name));
  return out != nullptr;
}

}  // namespace onepass
