// The device that is CUDA.
#include "cuda/runtime.hpp"

#include <cuda_runtime_api.h>

#include <map>
#include <stdexcept>
#include <utility>

#include "cuda/device.hpp"
#include "cuda/kernels.hpp"
#include "rules/norm.hpp"

namespace onepass::device {
namespace {

void check(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}

cudaStream_t handle(const Stream& stream) { return static_cast<cudaStream_t>(stream.handle); }

// Makes a device the current one for a while.
class Current {
 public:
  explicit Current(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device == before_) return;
    check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = true;
  }
  ~Current() {
    if (changed_) cudaSetDevice(before_);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

template <class Args>
void launch(const Stream& stream, const void* kernel, int64_t blocks, const Args& args) {
  const Current current(stream.device);
  void* pointers[] = {const_cast<Args*>(&args)};
  check(cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(block_threads), pointers, 0, handle(stream)),
        "cudaLaunchKernel");
}

cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

std::string driver_problem() {
  int driver = 0, devices = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no driver";
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return cudaGetErrorString(error);
  }
  return devices == 0 ? "no device" : "";
}

bool can_run(int device) {
  const Current current(device);
  cudaFuncAttributes attributes;
  const bool found = cudaFuncGetAttributes(&attributes, update_kernel(0)) == cudaSuccess;
  cudaGetLastError();
  return found;
}

bool is_capturing(const Stream& stream) {
  const Current current(stream.device);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(handle(stream), &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

void send(const Stream& stream, void* to, const void* from, size_t bytes) {
  const Current current(stream.device);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, handle(stream)), "cudaMemcpyAsync");
}

void fetch(const Stream& stream, void* to, const void* from, size_t bytes) {
  const Current current(stream.device);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, handle(stream)), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(handle(stream)), "cudaStreamSynchronize");
}

void fill_zero(const Stream& stream, void* to, size_t bytes) {
  const Current current(stream.device);
  check(cudaMemsetAsync(to, 0, bytes, handle(stream)), "cudaMemsetAsync");
}

Event::Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}

Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_of(event_));
}

void Event::set(const Stream& stream) {
  const Current current(stream.device);
  if (event_ == nullptr) {
    cudaEvent_t made = nullptr;
    check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    event_ = made;
  }
  check(cudaEventRecord(event_of(event_), handle(stream)), "cudaEventRecord");
}

bool Event::passed() const {
  if (event_ == nullptr) return true;
  const cudaError_t error = cudaEventQuery(event_of(event_));
  if (error == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(error, "cudaEventQuery");
  return true;
}

void Event::wait() const {
  if (event_ != nullptr) check(cudaEventSynchronize(event_of(event_)), "cudaEventSynchronize");
}

int64_t resident_blocks(const Stream& stream, int kernel) {
  static std::map<std::pair<int, int>, int64_t>& known = *new std::map<std::pair<int, int>, int64_t>;  // under the GIL
  const auto found = known.find({stream.device, kernel});
  if (found != known.end()) return found->second;
  const Current current(stream.device);
  int processors = 0, blocks = 0;
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, stream.device), "cudaDeviceGetAttribute");
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, update_kernel(kernel), block_threads, 0),
        "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return known[{stream.device, kernel}] = int64_t{processors} * (blocks > 0 ? blocks : 1);
}

void update(const Stream& stream, int kernel, int64_t blocks, const Work& work) {
  launch(stream, update_kernel(kernel), blocks, work);
}

void measure(const Stream& stream, const Measurement& work) {
  constexpr int64_t warps = block_threads / warp_lanes;
  const int64_t parts = (work.elements + norm_block - 1) / norm_block;
  launch(stream, measure_kernel(), (parts + warps - 1) / warps, work);
}

void finalize_scalars(const Stream& stream, const FinalizeScalars& work) { launch(stream, finalize_kernel(), 1, work); }

}  // namespace onepass::device
