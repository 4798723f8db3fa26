// Bytes of the host that the device has a copy of: sent when they have changed, from memory that the copy may still be
// reading when the next step comes.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

#include "cuda/device.hpp"

namespace onepass {

// Gives memory that stays until the allocator goes.
class Allocator {
 public:
  virtual ~Allocator() = default;
  virtual std::byte* on_device(size_t bytes) = 0;
  virtual std::byte* on_host(size_t bytes) = 0;  // from where a device can copy while the host goes on
};

// Memory of the device that grows.
class Buffer {
 public:
  // An address with room for so many bytes; it changes, and the contents are lost, only where that is more than ever.
  std::byte* reserve(Allocator& allocator, size_t bytes);

 private:
  std::byte* start_ = nullptr;
  size_t capacity_ = 0;
};

class DeviceCopy {
 public:
  DeviceCopy() = default;
  DeviceCopy(const DeviceCopy&) = delete;
  DeviceCopy& operator=(const DeviceCopy&) = delete;
  ~DeviceCopy();  // waits for copies under way: their sources go, too

  // Where the copy of so many bytes will be.
  std::byte* reserve(Allocator& allocator, size_t bytes);

  // Brings the copy up to date. In a graph (`captured`) the source must outlive the step, so it is never used again.
  // Returns whether anything was sent.
  bool send(Allocator& allocator, const device::Stream& stream, const std::vector<std::byte>& bytes, bool captured);

 private:
  struct Source {
    std::byte* start = nullptr;
    size_t capacity = 0;
    device::Event sent;  // behind the copy
  };
  Source& free_source(Allocator& allocator, size_t bytes);

  Buffer copy_;
  std::byte* place_ = nullptr;
  std::vector<std::byte> sent_;
  std::deque<Source> sources_;
};

}  // namespace onepass
