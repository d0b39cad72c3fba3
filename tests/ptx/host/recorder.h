// What the fake CUDA runtime of recorder.cpp hands out.
#pragma once

#include <cstdint>

// name; grid x y z, block x y z, bytes of dynamic shared memory, blocks of a cluster; arguments.
using Callback = void (*)(const char*, const unsigned*, void**);

// Has launches go to a callback, on a device of so many multiprocessors.
void set_recorder(Callback to, int multiprocessors);

constexpr uint32_t kMapMagic = 0x50414D54;

// A tensor map as the interpreter reads it (interpreter/tensor_map.py), in place of the driver's
// own, which nobody documents.
struct RecordedMap {
  uint32_t magic;
  uint8_t is_im2col, rank, swizzle, unused;
  uint64_t address;
  uint64_t strides[4];  // bytes, of all dimensions but the first
  uint32_t sizes[5];
  uint16_t box[5];       // tiled
  int16_t lower[2], upper[2];  // im2col: width, height
  uint16_t channels, pixels;   // im2col: a box
  uint8_t steps[5];
};
