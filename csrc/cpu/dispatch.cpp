#include "cpu/dispatch.hpp"

#include <cstdlib>
#include <stdexcept>

namespace onepass {
namespace {

bool always() { return true; }

#ifdef ONEPASS_X86
constexpr const char* portable_name = "x86-64";

bool has_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}

bool has_v4() {
  static const bool has = has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl") && roots_are_exact_v4();
  return has;
}
#else
constexpr const char* portable_name = "portable";
#endif

const Isa& choose() {
  const std::vector<Isa>& built = built_isas();
  const char* wanted = std::getenv("ONEPASS_CPU");
  if (wanted == nullptr || *wanted == '\0') {
    const Isa* best = &built.front();
    for (const Isa& isa : built) {
      if (isa.supported()) best = &isa;
    }
    return *best;
  }
  std::string names;
  for (const Isa& isa : built) {
    if (std::string(wanted) == isa.name) {
      if (isa.supported()) return isa;
      throw std::runtime_error("ONEPASS_CPU=" + std::string(wanted) + ": this processor does not support it");
    }
    names += (names.empty() ? "" : ", ") + std::string(isa.name);
  }
  throw std::runtime_error("ONEPASS_CPU=" + std::string(wanted) + ": unknown instruction set, this build has " + names);
}

}  // namespace

const std::vector<Isa>& built_isas() {
  static const std::vector<Isa> list = {
      {portable_name, always, update_portable, square_sum_portable, stream_portable, gather_portable},
#ifdef ONEPASS_X86
      {"v3", has_v3, update_v3, square_sum_v3, stream_v3, gather_v3},
      {"v4", has_v4, update_v4, square_sum_v4, stream_v4, gather_v4},
#endif
  };
  return list;
}

const Isa& isa() {
  static const Isa& chosen = choose();
  return chosen;
}

}  // namespace onepass
