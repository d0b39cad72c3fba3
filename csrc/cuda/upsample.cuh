// Enlarging and shrinking NHWC uint8 images: the nearest codes, or the mean of four.
#pragma once

#include "codes.cuh"
#include "upsample.h"

namespace fastinfer::cuda {

constexpr int kUpsampleThreads = 256;

__device__ __forceinline__ int32_t nearest_pixel(const UpsampleAxis& axis, int32_t i) {
  const float source = floorf(__fmul_rn(__int2float_rn(i), axis.scale));
  return min(__float2int_rz(source), axis.size - 1);
}

// The two pixels that a pixel lies between, and the weight of each.
struct Between {
  int32_t first, second;
  float first_weight, second_weight;
};

__device__ __forceinline__ Between between_pixels(const UpsampleAxis& axis, int32_t i) {
  const float middle = __fmul_rn(__fadd_rn(__int2float_rn(i), axis.offset), axis.scale);
  const float source = fmaxf(__fadd_rn(middle, -axis.offset), 0.0f);
  const int32_t first = min(__float2int_rz(floorf(source)), axis.size - 1);
  const float away = __fadd_rn(source, -__int2float_rn(first));
  const float weight = fminf(fmaxf(away, 0.0f), 1.0f);
  return {first, min(first + 1, axis.size - 1), __fadd_rn(1.0f, -weight), weight};
}

__device__ __forceinline__ float weighted(float a, float a_weight, float b, float b_weight) {
  return __fadd_rn(__fmul_rn(a, a_weight), __fmul_rn(b, b_weight));
}

// A thread has kBytes channels of an output pixel.
template <int kBytes, bool kBilinear>
__global__ void __launch_bounds__(kUpsampleThreads)
    int8_upsample(const __grid_constant__ UpsampleCall c, uint32_t places) {
  const uint32_t place = blockIdx.x * kUpsampleThreads + threadIdx.x;
  if (place >= places) return;
  const auto pieces = static_cast<uint32_t>(c.channels) / kBytes;
  const uint32_t pixel = place / pieces, line = pixel / c.w.out, image = line / c.h.out;
  const auto out_y = static_cast<int32_t>(line - image * c.h.out);
  const auto out_x = static_cast<int32_t>(pixel - line * c.w.out);
  const uint8_t* from = c.x + int64_t{image} * c.h.size * c.w.size * c.channels +
                        (place - pixel * pieces) * kBytes;
  const auto load = [&](int32_t y, int32_t x) {
    Codes<kBytes> codes;
    codes.load(from + (y * c.w.size + x) * c.channels);
    return codes;
  };
  Codes<kBytes> out;
  if constexpr (!kBilinear) {
    out = load(nearest_pixel(c.h, out_y), nearest_pixel(c.w, out_x));
  } else {
    const Between h = between_pixels(c.h, out_y), w = between_pixels(c.w, out_x);
    const Codes<kBytes> corners[4] = {load(h.first, w.first), load(h.first, w.second),
                                      load(h.second, w.first), load(h.second, w.second)};
    const Rounding rounding{0.0f, 255.0f, 0u};
#pragma unroll
    for (int word = 0; word < Codes<kBytes>::kWords; word++) {
      float f[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float at[4];
#pragma unroll
        for (int corner = 0; corner < 4; corner++) {
          at[corner] = float_of(corners[corner].words[word], i);
        }
        f[i] = weighted(weighted(at[0], w.first_weight, at[1], w.second_weight), h.first_weight,
                        weighted(at[2], w.first_weight, at[3], w.second_weight), h.second_weight);
      }
      out.words[word] = codes_of(f, rounding);
    }
  }
  out.store(c.out + int64_t{place} * kBytes);
}

}  // namespace fastinfer::cuda
