#include "cuda/device_copy.hpp"

#include <algorithm>
#include <cstring>
#include <exception>

namespace onepass {
namespace {

constexpr size_t most_sources = 16;  // copies under way; then the host waits

}  // namespace

std::byte* Buffer::reserve(Allocator& allocator, size_t bytes) {
  if (bytes > capacity_) {
    capacity_ = std::max(bytes, 2 * capacity_);
    start_ = allocator.on_device(capacity_);
  }
  return start_;
}

DeviceCopy::~DeviceCopy() {
  for (const Source& source : sources_) {
    try {
      source.sent.wait();
    } catch (const std::exception&) {  // the device has failed; nothing is under way any more
    }
  }
}

std::byte* DeviceCopy::reserve(Allocator& allocator, size_t bytes) {
  return place_ = copy_.reserve(allocator, bytes);  // elsewhere only if larger, and then it is sent anyway
}

bool DeviceCopy::send(Allocator& allocator, const device::Stream& stream, const std::vector<std::byte>& bytes,
                      bool captured) {
  if (bytes == sent_) return false;
  Source& source = free_source(allocator, bytes.size());
  std::memcpy(source.start, bytes.data(), bytes.size());
  device::send(stream, place_, source.start, bytes.size());
  if (!captured) source.sent.set(stream);
  sent_ = bytes;
  return true;
}

DeviceCopy::Source& DeviceCopy::free_source(Allocator& allocator, size_t bytes) {
  for (Source& source : sources_) {
    if (source.capacity >= bytes && source.sent.passed()) return source;
  }
  if (sources_.size() == most_sources) {
    sources_.front().sent.wait();
    sources_.pop_front();  // its memory stays with the allocator
  }
  Source& source = sources_.emplace_back();
  source.start = allocator.on_host(bytes);
  source.capacity = bytes;
  return source;
}

}  // namespace onepass
