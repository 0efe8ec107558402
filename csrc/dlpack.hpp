// What a call uses of DLPack's interface in C, version 1: how torch shows a tensor's memory, and
// takes memory as a tensor, without its headers (https://dmlc.github.io/dlpack/latest/c_api.html).
#pragma once
#include <cstdint>

namespace ree::dlpack {

constexpr char kCapsule[] = "dlpack_exchange_api";
constexpr uint32_t kMajor = 1;
constexpr int32_t kCpu = 1;

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
  int64_t* strides;  // in elements; null: contiguous
  uint64_t byte_offset;
};
struct Managed {
  Version version;
  void* context;
  void (*deleter)(Managed*);
  uint64_t flags;
  Tensor tensor;
};
struct Exchange {
  Version version;
  Exchange* previous;
  void* allocate;
  void* to_managed;
  int (*to_python)(Managed*, void** object);       // takes the tensor if it gives 0
  int (*from_python)(void* object, Tensor* view);  // the object keeps what the view shows
  void* stream;
};

}  // namespace ree::dlpack
