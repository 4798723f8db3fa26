// The kernels as the host's code knows them: by address.
#pragma once

namespace onepass::device {

// By their numbers in work.hpp.
const void* update_kernel(int kernel);
const void* common_kernel(int place);  // of those for common combinations
const void* measure_kernel();
const void* finalize_kernel();

}  // namespace onepass::device
