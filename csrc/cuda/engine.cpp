#include "cuda/engine.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "rules/norm.hpp"

namespace onepass {
namespace {

// Whether the scalars of a plan, or that it runs at all, are known on the device only.
bool depends_on_device(const Plan& plan, const StepOptions& options) {
  if (options.measures || options.grad_scale != nullptr || options.found_inf != nullptr) return true;
  const auto& groups = plan.groups();
  const auto& origins = plan.origins();
  return std::any_of(groups.begin(), groups.end(), [](const Group& g) { return g.on_device != 0; }) ||
         std::any_of(origins.begin(), origins.end(), [](const auto& o) { return o.t.count != nullptr; });
}

// Whether the number of the step chooses random bits.
bool draws(const Plan& plan) {
  const auto& groups = plan.groups();
  const auto& segments = plan.segments();
  return std::any_of(groups.begin(), groups.end(), [](const Group& g) { return g.number[Group::stochastic] != 0; }) ||
         std::any_of(segments.begin(), segments.end(), [](const Segment& s) { return s.quantized; });
}

template <class T>
void append(std::vector<std::byte>& bytes, const T& value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

int64_t norm_blocks(const Plan& plan) { return (plan.elements() + norm_block - 1) / norm_block; }

}  // namespace

void Engine::check(const Plan& plan, const StepOptions& options, bool counted) const {
  if (!device::is_capturing(options.stream)) return;
  if (counted) {
    throw std::runtime_error("a CUDA graph needs step counts on the device: make the optimizer with capturable=True");
  }
  if (!counts_ && (draws(plan) || depends_on_device(plan, options))) {
    throw std::runtime_error("the optimizer needs a step with the same options before the CUDA graph that holds one");
  }
}

void Engine::step(const Plan& plan, const StepOptions& options) {
  const bool captured = device::is_capturing(options.stream);
  StepBuffers& side = captured ? captured_.emplace_back() : usual_;
  const size_t size = table_.lay_out(plan, device::resident_blocks(options.stream, 0));
  const std::byte* const base = side.table.reserve(allocator_, size);
  sent_ += side.table.send(allocator_, options.stream, table_.write(plan, base), captured);

  Work work{};
  work.segments = table_.segments(base);
  work.chunk_elements = table_.chunk_elements();
  if (counts_ || options.count || depends_on_device(plan, options)) {
    if (!counts_) start_counting(options);
    work.scalars = finalize_scalars(side, plan, options, work.segments, captured);
    work.outcome = outcome_;
  } else if (plan.scalars().size() <= Work::most_few) {
    std::copy(plan.scalars().begin(), plan.scalars().end(), work.few);
  } else {
    bytes_.clear();
    for (const Scalars& scalars : plan.scalars()) append(bytes_, scalars);
    work.scalars = reinterpret_cast<const Scalars*>(side.scalars.reserve(allocator_, bytes_.size()));
    side.scalars.send(allocator_, options.stream, bytes_, captured);
  }
  for (const Table::Launch& launch : table_.launches()) {
    work.chunks = table_.chunks(base) + launch.first;
    work.count = launch.count;
    const int64_t blocks = std::min(launch.count, device::resident_blocks(options.stream, launch.kernel));
    device::update(options.stream, launch.kernel, blocks, work);
  }
}

void Engine::start_counting(const StepOptions& options) {
  StepResult start{};
  start.applied = options.applied;
  bytes_.clear();
  append(bytes_, start);
  outcome_ = reinterpret_cast<StepResult*>(start_.reserve(allocator_, sizeof start));
  start_.send(allocator_, options.stream, bytes_, false);
  counts_ = true;
}

BlockSum* Engine::launch_measurement(StepBuffers& side, const Plan& plan, const StepOptions& options,
                                     const Segment* segments) {
  const int64_t blocks = norm_blocks(plan);
  auto* const sums = reinterpret_cast<BlockSum*>(
      side.sums.reserve(allocator_, static_cast<size_t>(std::max<int64_t>(1, blocks)) * sizeof(BlockSum)));
  if (blocks != 0) {
    device::measure(options.stream, {segments, static_cast<int64_t>(plan.segments().size()), plan.elements(), sums});
  }
  return sums;
}

const Scalars* Engine::finalize_scalars(StepBuffers& side, const Plan& plan, const StepOptions& options,
                                        const Segment* segments, bool captured) {
  FinalizeScalars work{};
  work.outcome = outcome_;
  work.unscale = options.unscale;
  work.max_norm = options.max_norm;
  work.skip_nonfinite = options.skip_nonfinite;
  work.grad_scale = options.grad_scale;
  work.found_inf = options.found_inf;
  if (options.measures) {
    work.sums = launch_measurement(side, plan, options, segments);
    work.blocks = norm_blocks(plan);
  }
  size_t size = plan.groups().size() * sizeof(Group) + plan.origins().size() * sizeof(Source), programs = size;
  for (const Group& group : plan.groups()) {
    for (int k = 0; k < group.on_device; ++k) size += static_cast<size_t>(group.device[k].bytes);
  }
  const std::byte* const terms = side.terms.reserve(allocator_, size);
  bytes_.clear();
  for (Group group : plan.groups()) {
    group.draw = 0;  // the device has its own count
    for (int k = 0; k < group.on_device; ++k) {
      if (group.device[k].kind != OnDevice::program) continue;
      group.device[k].at = terms + programs;
      programs += static_cast<size_t>(group.device[k].bytes);
    }
    append(bytes_, group);
  }
  for (const Plan::Origin& origin : plan.origins()) {
    Source source{};
    source.group = origin.group;
    source.new_ema = origin.new_ema;
    source.count = origin.t.count;
    source.count_is_double = origin.t.is_double;
    source.t = origin.t.known;
    append(bytes_, source);
  }
  for (const Group& group : plan.groups()) {
    for (int k = 0; k < group.on_device; ++k) {
      const auto* const program = static_cast<const std::byte*>(group.device[k].at);
      bytes_.insert(bytes_.end(), program, program + group.device[k].bytes);
    }
  }
  side.terms.send(allocator_, options.stream, bytes_, captured);
  work.groups = reinterpret_cast<const Group*>(terms);
  work.sources = reinterpret_cast<const Source*>(terms + plan.groups().size() * sizeof(Group));
  work.count = static_cast<int64_t>(plan.origins().size());
  work.scalars = reinterpret_cast<Scalars*>(
      side.finalized.reserve(allocator_, std::max<size_t>(1, plan.origins().size()) * sizeof(Scalars)));
  device::finalize_scalars(options.stream, work);
  return work.scalars;
}

StepResult Engine::measure(const Plan& plan, const StepOptions& options) {
  const size_t size = table_.lay_out(plan, device::resident_blocks(options.stream, 0));
  StepBuffers& side = usual_;
  const std::byte* const base = side.table.reserve(allocator_, size);
  side.table.send(allocator_, options.stream, table_.write(plan, base), false);
  StepResult out{};
  FinalizeScalars work{};
  work.outcome = reinterpret_cast<StepResult*>(side.finalized.reserve(allocator_, sizeof out));
  work.sums = launch_measurement(side, plan, options, table_.segments(base));
  work.blocks = norm_blocks(plan);
  work.unscale = options.unscale;
  work.max_norm = options.max_norm;
  work.skip_nonfinite = options.skip_nonfinite;
  work.grad_scale = options.grad_scale;
  work.found_inf = options.found_inf;
  device::fill_zero(options.stream, work.outcome, sizeof out);
  device::finalize_scalars(options.stream, work);
  device::fetch(options.stream, &out, work.outcome, sizeof out);
  return out;
}

StepResult Engine::outcome(const device::Stream& stream) {
  StepResult out{};
  device::fetch(stream, &out, outcome_, sizeof out);
  return out;
}

}  // namespace onepass
