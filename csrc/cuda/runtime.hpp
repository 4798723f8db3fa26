// What Python may ask of CUDA itself.
#pragma once

#include <string>

namespace onepass::device {

// Why no CUDA device can be used, or nothing.
std::string driver_problem();

// Whether there is code for a device's architecture.
bool can_run(int device);

}  // namespace onepass::device
