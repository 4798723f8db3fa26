// The part of the DLPack C exchange API that this extension calls, as the DLPack 1.3 specification lays it out.
// https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <cstdint>

namespace onepass::dlpack {

constexpr const char* capsule_name = "dlpack_exchange_api";
constexpr uint32_t major_version = 1;
enum DeviceType : int32_t { cpu = 1, cuda = 2, cuda_host = 3 };
enum TypeCode : uint8_t { integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4 };

struct Version {
  uint32_t major, minor;
};

struct Device {
  int32_t type, id;
};

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

struct ExchangeApi {
  Version version;
  ExchangeApi* previous;
  void* allocator;
  void* export_managed;
  void* import_managed;
  int (*read)(void* object, Tensor* out);  // borrows; may be null
  void* current_stream;
};

}  // namespace onepass::dlpack
