// What a step needs of a device, one after another in a stream. One source file does it with CUDA, another on the host
// itself, so that everything but the launching of kernels can be tested without a GPU. Errors are std::runtime_error.
#pragma once

#include <cstddef>

#include "cuda/work.hpp"

namespace onepass::device {

struct Stream {
  int device;
  void* handle;

  bool operator==(const Stream&) const = default;
};

// What is launched now goes into a graph, to be run later and again.
bool is_capturing(const Stream& stream);

// Copies memory of the host, which must stay as it is until that has happened.
void send(const Stream& stream, void* to, const void* from, size_t bytes);

// Copies to the host, and waits for it.
void fetch(const Stream& stream, void* to, const void* from, size_t bytes);

void fill_zero(const Stream& stream, void* to, size_t bytes);

// A place in a stream.
class Event {
 public:
  Event() = default;
  Event(Event&& other) noexcept;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event();

  void set(const Stream& stream);
  bool passed() const;  // true as well if it was never set
  void wait() const;

 private:
  void* event_ = nullptr;
};

// How many blocks of a kernel (see work.hpp) the device runs at a time.
int64_t resident_blocks(const Stream& stream, int kernel);

void update(const Stream& stream, int kernel, int64_t blocks, const Work& work);
void measure(const Stream& stream, const Measurement& work);
void finalize_scalars(const Stream& stream, const FinalizeScalars& work);

}  // namespace onepass::device
