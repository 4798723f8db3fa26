// Runs plans on a device: keeps its tables there up to date and launches the kernels, without waiting for anything.
#pragma once

#include <deque>

#include "cuda/device_copy.hpp"
#include "cuda/table.hpp"

namespace onepass {

// What a step asks for beyond its plan.
struct StepOptions {
  device::Stream stream{};
  bool measures = false;              // the norm of all gradients,
  double max_norm = infinity;         // to clip by it,
  bool skip_nonfinite = false;        // and to do nothing if one of them is not finite
  double unscale = 1;                 // what the gradients lack, as far as the host knows
  const float* grad_scale = nullptr;  // of a GradScaler, on the device
  const float* found_inf = nullptr;
  int64_t applied = 0;  // steps so far, as far as the host knows
  bool count = false;   // have the device count from now on
};

class Engine {
 public:
  explicit Engine(Allocator& allocator) : allocator_(allocator) {}

  // Throws std::runtime_error if a step cannot go into a graph. `counted`: the host counts steps of it.
  void check(const Plan& plan, const StepOptions& options, bool counted) const;

  // Enqueues the step.
  void step(const Plan& plan, const StepOptions& options);

  // The norm of a plan's gradients, at once.
  StepResult measure(const Plan& plan, const StepOptions& options);

  // Whether the device counts the steps: it does from the first one on of which the host cannot know what it does.
  bool counts() const { return counts_; }

  // What became of the last step; waits for it. Only where the device counts.
  StepResult outcome(const device::Stream& stream);

  // How often a table was sent.
  int64_t sent() const { return sent_; }

 private:
  // The device's side of a step. One that goes into a graph has its own.
  struct StepBuffers {
    DeviceCopy table, terms, scalars;
    Buffer sums, finalized;
  };

  BlockSum* launch_measurement(StepBuffers& side, const Plan& plan, const StepOptions& options,
                               const Segment* segments);
  void start_counting(const StepOptions& options);
  const Scalars* finalize_scalars(StepBuffers& side, const Plan& plan, const StepOptions& options,
                                  const Segment* segments, bool captured);

  Allocator& allocator_;
  StepBuffers usual_;
  std::deque<StepBuffers> captured_;
  Table table_;
  std::vector<std::byte> bytes_;
  DeviceCopy start_;
  StepResult* outcome_ = nullptr;
  bool counts_ = false;
  int64_t sent_ = 0;
};

}  // namespace onepass
