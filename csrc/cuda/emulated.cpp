// A device that is the host itself: the code of the kernels, thread by thread. For tests.
#include "cuda/emulated.hpp"

#include <cstring>
#include <deque>
#include <functional>

#include "cuda/device.hpp"
#include "cuda/finalize.hpp"
#include "cuda/general.hpp"
#include "cuda/typed.hpp"

namespace onepass::device {
namespace {

constexpr int64_t blocks_at_a_time = 3;

// What a deferring stream has not done yet.
std::deque<std::function<void()>> waiting, graph;
bool defers = false, captures = false;
uint64_t begun = 0, done = 0;

template <class Do>
void enqueue(const Do& act) {
  if (captures) {
    graph.emplace_back(act);
    return;
  }
  ++begun;
  waiting.emplace_back(act);
  if (!defers) run_waiting();
}

template <class T>
void update_typed(const Work& work, int64_t blocks) {
  for (int64_t block = 0; block < blocks; ++block) {
    for (int thread = 0; thread < block_threads; ++thread) Typed<T>::update(work, block, blocks, thread, block_threads);
  }
}

template <class C>
void update_general(const Work& work, int64_t blocks) {
  constexpr int warps = block_threads / warp_lanes;
  const auto tile = [](const Segment& segment, const Scalars& scalars, int64_t at, int n) {
    std::deque<Lane<C>> lanes;
    uint32_t largest[max_states] = {};
    for (int lane = 0; lane < warp_lanes; ++lane) {
      const int place = lane * lane_elements;
      lanes.emplace_back(segment, scalars, at + place, elements_of(lane, n), place).compute();
      for (int k = 0; k < segment.states && segment.quantized; ++k) {
        largest[k] = std::max(largest[k], lanes.back().largest(k));
      }
    }
    for (Lane<C>& lane : lanes) lane.write(largest);
  };
  for (int64_t block = 0; block < blocks; ++block) {
    for (int warp = 0; warp < warps; ++warp) each_tile(work, block, blocks, warp, warps, tile);
  }
}

template <class... T>
void update_common(TypesList<T...>, int kernel, const Work& work, int64_t blocks) {
  constexpr void (*kernels[])(const Work&, int64_t) = {update_typed<T>...};
  static_assert(sizeof...(T) == common_kernels);
  kernels[kernel](work, blocks);
}

template <class Get>
LaneSum folded(const Get& get) {
  double sums[norm_lanes];
  LaneSum all;
  for (int lane = 0; lane < norm_lanes; ++lane) {
    const LaneSum one = get(lane);
    sums[lane] = one.sum;
    all.finite = all.finite && one.finite;
  }
  all.sum = fold(sums);
  return all;
}

}  // namespace

void run_waiting() {
  while (!waiting.empty()) {
    waiting.front()();
    waiting.pop_front();
    ++done;
  }
}

void defer(bool on) { defers = on; }

void capture(bool on) {
  if (on) graph.clear();
  captures = on;
}

void replay() {
  for (const auto& act : graph) act();
}

bool is_capturing(const Stream&) { return captures; }

void send(const Stream&, void* to, const void* from, size_t bytes) {
  enqueue([=] { std::memcpy(to, from, bytes); });
}

void fetch(const Stream&, void* to, const void* from, size_t bytes) {
  run_waiting();
  std::memcpy(to, from, bytes);
}

void fill_zero(const Stream&, void* to, size_t bytes) {
  enqueue([=] { std::memset(to, 0, bytes); });
}

// The event is the number of what was enqueued before it.
Event::Event(Event&& other) noexcept : event_(other.event_) {}
Event::~Event() = default;
void Event::set(const Stream&) { event_ = reinterpret_cast<void*>(begun); }
bool Event::passed() const { return done >= reinterpret_cast<uint64_t>(event_); }
void Event::wait() const { run_waiting(); }

int64_t resident_blocks(const Stream&, int) { return blocks_at_a_time; }

void update(const Stream&, int kernel, int64_t blocks, const Work& work) {
  enqueue([=] {
    if (kernel == any_float) {
      update_general<float>(work, blocks);
    } else if (kernel == any_double) {
      update_general<double>(work, blocks);
    } else {
      update_common(Common{}, kernel, work, blocks);
    }
  });
}

void measure(const Stream&, const Measurement& work) {
  enqueue([=] {
    for (int64_t block = 0; block * norm_block < work.elements; ++block) {
      const LaneSum sum = folded([&](int lane) { return measure_lane(work, block, lane); });
      work.sums[block] = {sum.sum, sum.finite};
    }
  });
}

void finalize_scalars(const Stream&, const FinalizeScalars& work) {
  enqueue([=] {
    const LaneSum sum = folded([&](int lane) { return sum_of_blocks(work, lane); });
    decide(work, sum.sum, sum.finite);
    for (int thread = 0; thread < block_threads; ++thread) prepare(work, thread, block_threads);
  });
}

}  // namespace onepass::device
