// The kernels for common combinations of types.
#include "cuda/kernels.cuh"

namespace onepass::device {
namespace {

template <class... T>
const void* kernel_at(TypesList<T...>, int place) {
  static_assert(sizeof...(T) == common_kernels);
  const void* const kernels[] = {reinterpret_cast<const void*>(update_typed<T>)...};
  return kernels[place];
}

}  // namespace

const void* common_kernel(int place) { return kernel_at(Common{}, place); }

}  // namespace onepass::device
