#include "cuda/table.hpp"

#include <algorithm>
#include <cstring>

#include "cuda/vector.hpp"
#include "rules/access.hpp"

namespace onepass {
namespace {

// Long enough that finding a chunk costs little, short enough that all blocks end together.
constexpr int64_t smallest_chunk = 2048, largest_chunk = 65536, chunks_per_block = 16;
static_assert(smallest_chunk % quantized_block == 0);

template <class... T>
int width_of(TypesList<T...>, int kernel) {
  constexpr int widths[] = {vector_width<T>...};
  return widths[kernel];
}

// All of them lie together: the shape first, the strides of the last operand last.
size_t numbers_of(const Strided& strided) {
  return static_cast<size_t>(strided.stride[max_operands - 1] - strided.shape + strided.dims);
}

template <class T>
void put(std::vector<std::byte>& bytes, size_t at, const T* from, size_t count) {
  if (count != 0) std::memcpy(bytes.data() + at, from, count * sizeof(T));
}

}  // namespace

int kernel_of(const Segment& segment, const Group& group) {
  const double* const n = group.number;
  Scalars asked{};
  asked.clamp = n[Group::clamp];
  asked.subgradient = n[Group::subgradient];
  asked.threshold = n[Group::proximal];
  asked.stochastic = n[Group::stochastic] != 0;
  for (int k = 0; k < group.on_device; ++k) {  // it may be any number in the step
    if (group.device[k].place == Group::proximal) asked.threshold = 1;
    if (group.device[k].place == Group::subgradient) asked.subgradient = 1;
  }
  const int common = is_simple(segment, asked) ? combination_of(segment) : -1;
  return common >= 0 ? common : segment.dtype[param] == Dtype::f64 ? any_double : any_float;
}

int8_t head_of(const Segment& segment, int width) {
  for (int head = 0; head < width; ++head) {
    bool fits = true;
    for (int k = 0; k < max_operands; ++k) {
      if (!segment.has(k)) continue;
      const auto size = static_cast<uintptr_t>(size_of(segment.dtype[k])), count = static_cast<uintptr_t>(width);
      const uintptr_t address = reinterpret_cast<uintptr_t>(segment.data[k]) + size * static_cast<uintptr_t>(head);
      fits = fits && address % std::min<uintptr_t>(16, size * count) == 0;
    }
    if (fits) return static_cast<int8_t>(head);
  }
  return -1;
}

size_t Table::lay_out(const Plan& plan, int64_t blocks) {
  const int64_t wanted = plan.elements() / (chunks_per_block * blocks);
  chunk_elements_ = smallest_chunk;
  while (chunk_elements_ < largest_chunk && 2 * chunk_elements_ <= wanted) chunk_elements_ *= 2;

  size_t strided = 0, numbers = 0;
  kernels_.clear();
  for (const Segment& segment : plan.segments()) {
    kernels_.push_back(kernel_of(segment, plan.groups()[plan.origins()[segment.scalars].group]));
    if (segment.strided == nullptr) continue;
    ++strided;
    numbers += numbers_of(*segment.strided);
  }
  chunks_.clear();
  launches_.clear();
  for (int kernel = 0; kernel < update_kernels; ++kernel) {
    const auto first = static_cast<int64_t>(chunks_.size());
    for (size_t s = 0; s < kernels_.size(); ++s) {
      if (kernels_[s] != kernel) continue;
      const int64_t pieces = (plan.segments()[s].count + chunk_elements_ - 1) / chunk_elements_;
      for (int64_t i = 0; i < pieces; ++i) chunks_.push_back({static_cast<uint32_t>(s), static_cast<uint32_t>(i)});
    }
    const auto count = static_cast<int64_t>(chunks_.size()) - first;
    if (count != 0) launches_.push_back({kernel, first, count});
  }
  strided_at_ = plan.segments().size() * sizeof(Segment);
  numbers_at_ = strided_at_ + strided * sizeof(Strided);
  chunks_at_ = numbers_at_ + numbers * sizeof(int64_t);
  return chunks_at_ + chunks_.size() * sizeof(Chunk);
}

const std::vector<std::byte>& Table::write(const Plan& plan, const std::byte* base) {
  bytes_.assign(chunks_at_ + chunks_.size() * sizeof(Chunk), std::byte{});
  size_t strided_at = strided_at_, numbers_at = numbers_at_;
  for (size_t s = 0; s < plan.segments().size(); ++s) {
    Segment segment = plan.segments()[s];
    segment.head = kernels_[s] < common_kernels ? head_of(segment, width_of(Common{}, kernels_[s])) : int8_t{0};
    if (segment.strided != nullptr) {
      const Strided& from = *segment.strided;
      put(bytes_, numbers_at, from.shape, numbers_of(from));
      Strided strided;
      std::memset(static_cast<void*>(&strided), 0, sizeof strided);  // the gaps, too: tables are compared
      const auto moved = [&](const int64_t* p) {
        return reinterpret_cast<const int64_t*>(base + numbers_at) + (p - from.shape);
      };
      strided.dims = from.dims;
      strided.shape = moved(from.shape);
      for (int k = 0; k < max_operands; ++k) strided.stride[k] = moved(from.stride[k]);
      put(bytes_, strided_at, &strided, 1);
      segment.strided = reinterpret_cast<const Strided*>(base + strided_at);
      strided_at += sizeof(Strided);
      numbers_at += numbers_of(from) * sizeof(int64_t);
    }
    put(bytes_, s * sizeof(Segment), &segment, 1);
  }
  put(bytes_, chunks_at_, chunks_.data(), chunks_.size());
  return bytes_;
}

}  // namespace onepass
