// Operations on uint8 codes, element by element: arguments and launchers. No torch, no CUDA types.
#pragma once

#include <cstdint>

#include "rounding.h"

namespace fastinfer::cuda {

// How y of a pair lies: as x, or one value a channel that all pixels of an image share.
struct Repeats {
  uint32_t channels, pixels;  // of an image; 0: y lies as x
};

struct PairCall {
  const uint8_t* x;
  const uint8_t* y;
  uint8_t* out;
  const uint8_t* table;  // applied last, or null; of sums
  int64_t count;
  float x_multiplier, y_multiplier;  // of products: x's alone
  int32_t x_zero_point, y_zero_point;
  Rounding rounding;
  Repeats repeats;
  bool is_product;
};

struct LookupCall {
  const uint8_t* x;
  const uint8_t* table;
  uint8_t* out;
  int64_t count;
};

struct DequantizeCall {
  const uint8_t* x;
  float* out;
  int64_t count;
  float scale;
  int32_t zero_point;
};

// One tensor of a concatenation: rows of `width` bytes that start at a column of the result's.
struct CatPart {
  const uint8_t* x;
  int64_t width, column;
  float multiplier;
  int32_t zero_point;
};

constexpr int kMostCatParts = 32;  // of one launch

struct CatCall {
  uint8_t* out;       // at the first part's column
  int64_t step;       // bytes from one row of the result to the next
  int64_t width;      // of all parts of this launch together
  int64_t rows;
  Rounding rounding;
  int32_t count;
  CatPart parts[kMostCatParts];  // columns count from `out`
};

// Bytes that a thread takes at a time: the most of 16, 4 and 1 of which all sizes are multiples and
// to which all addresses are aligned. Pure.
int32_t cat_bytes(const CatCall& call);

// Most bytes of a pair whose y repeats, and pieces of a concatenation, which are counted in 32 bits.
constexpr int64_t kMostPlaces = int64_t{1} << 31;

// Launch on a stream (a cudaStream_t); 0 or a cudaError_t.
int launch_pair(const PairCall& call, void* stream);
int launch_lookup(const LookupCall& call, void* stream);
int launch_dequantize(const DequantizeCall& call, void* stream);
int launch_cat(const CatCall& call, void* stream);

}  // namespace fastinfer::cuda
