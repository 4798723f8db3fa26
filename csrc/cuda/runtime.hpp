// What Python may ask of CUDA itself.
#pragma once

#include <cstdint>
#include <string>

namespace onepass::device {

// Why no CUDA device can be used, or nothing.
std::string driver_problem();

// Copies memory on a device, in a stream: what the limit of any update is measured by.
void copy_on_device(uintptr_t to, uintptr_t from, size_t bytes, int device, uintptr_t stream);

}  // namespace onepass::device
