// The work list of a step as a device takes it: one run of bytes with segments, strides and chunks.
#pragma once

#include <cstddef>
#include <vector>

#include "cuda/work.hpp"
#include "plan/plan.hpp"

namespace onepass {

class Table {
 public:
  // The chunks that one kernel takes.
  struct Launch {
    int kernel;
    int64_t first, count;
  };

  // Cuts a plan for a device that runs so many blocks at a time. Returns how many bytes that takes.
  size_t lay_out(const Plan& plan, int64_t blocks);

  // The bytes, for a table that stands at `base` in the device's memory.
  const std::vector<std::byte>& write(const Plan& plan, const std::byte* base);

  const std::vector<Launch>& launches() const { return launches_; }
  int64_t chunk_elements() const { return chunk_elements_; }
  const Segment* segments(const std::byte* base) const { return reinterpret_cast<const Segment*>(base); }
  const Chunk* chunks(const std::byte* base) const { return reinterpret_cast<const Chunk*>(base + chunks_at_); }

 private:
  std::vector<std::byte> bytes_;
  std::vector<Launch> launches_;
  std::vector<int> kernels_;  // of each segment
  std::vector<Chunk> chunks_;
  int64_t chunk_elements_ = 0;
  size_t strided_at_ = 0, numbers_at_ = 0, chunks_at_ = 0;
};

// The kernel that a segment of a group takes.
int kernel_of(const Segment& segment, const Group& group);

// Segment::head for a vector of `width` elements.
int8_t head_of(const Segment& segment, int width);

}  // namespace onepass
