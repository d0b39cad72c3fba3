// Layer norm and softmax of float rows, to the bit as fastinfer/ops/float_rows.py defines them:
// every operation is rounded to float32 by itself, and sums have the order of 16 partial sums.
//
// Element i of a row belongs to partial sum i % 16. A thread has one of them and loads one value at
// a time, or has four neighbouring ones and loads 16 bytes: 16 or 4 threads are a row.
#pragma once

#include <cstdint>

#include "float_rows.h"

namespace fastinfer::cuda {

constexpr int kRowSums = 16;
constexpr int kRowThreads = 64;  // few: rows of a small batch reach more multiprocessors
constexpr unsigned kWholeWarp = 0xFFFFFFFFu;

// The part of a row that one thread has. kValues: 1, or 4 where rows are whole, aligned 16 bytes.
template <int kValues>
struct RowPart {
  static_assert(kValues == 1 || kValues == 4);
  static constexpr int kLanes = kRowSums / kValues;  // threads of a row
  static constexpr int kRows = kRowThreads / kLanes;  // of a block

  const float* from;
  float* to;
  int32_t first, n;

  // Threads of rows that are not there have a part of no elements: they shuffle with the others.
  __device__ __forceinline__ RowPart(const float* x, float* out, int64_t rows, int32_t n_in) {
    const auto thread = static_cast<int32_t>(threadIdx.x);
    const int64_t row = int64_t{blockIdx.x} * kRows + thread / kLanes;
    const bool is_row = row < rows;
    from = x + (is_row ? row * n_in : 0);
    to = out + (is_row ? row * n_in : 0);
    first = thread % kLanes * kValues;
    n = is_row ? n_in : 0;
  }

  __device__ __forceinline__ static void load(float (&v)[kValues], const float* p) {
    if constexpr (kValues == 4) {
      const float4 w = __ldg(reinterpret_cast<const float4*>(p));
      v[0] = w.x, v[1] = w.y, v[2] = w.z, v[3] = w.w;
    } else {
      v[0] = __ldg(p);
    }
  }

  // use(values, index of the first) for all that this thread has, in order.
  template <class Use>
  __device__ __forceinline__ void each(const Use& use) const {
#pragma unroll 4
    for (int32_t i = first; i < n; i += kRowSums) {
      float v[kValues];
      load(v, from + i);
      use(v, i);
    }
  }

  __device__ __forceinline__ void store(const float (&v)[kValues], int32_t i) const {
    if constexpr (kValues == 4) {
      *reinterpret_cast<float4*>(to + i) = {v[0], v[1], v[2], v[3]};
    } else {
      to[i] = v[0];
    }
  }

  // The sum of the row's partial sums, which are added pairwise: 8 apart, 4, 2, 1.
  __device__ __forceinline__ static float total(float (&sums)[kValues]) {
#pragma unroll
    for (int apart = kLanes / 2; apart > 0; apart /= 2) {
#pragma unroll
      for (int i = 0; i < kValues; i++) {
        sums[i] = __fadd_rn(sums[i], __shfl_xor_sync(kWholeWarp, sums[i], apart));
      }
    }
    if constexpr (kValues == 4) {
      return __fadd_rn(__fadd_rn(sums[0], sums[2]), __fadd_rn(sums[1], sums[3]));
    }
    return sums[0];
  }

  // The largest number of the row; NaN is passed over.
  __device__ __forceinline__ static float largest(float most) {
#pragma unroll
    for (int apart = kLanes / 2; apart > 0; apart /= 2) {
      most = fmaxf(most, __shfl_xor_sync(kWholeWarp, most, apart));
    }
    return most;
  }
};

template <int kValues>
__global__ void __launch_bounds__(kRowThreads)
    float_layer_norm(const __grid_constant__ NormRows c) {
  using Part = RowPart<kValues>;
  const Part part(c.x, c.out, c.rows, c.n);
  const float count = __int2float_rn(c.n);
  float sums[kValues] = {};
  part.each([&](const float (&v)[kValues], int32_t) {
#pragma unroll
    for (int i = 0; i < kValues; i++) sums[i] = __fadd_rn(sums[i], v[i]);
  });
  const float mean = __fdiv_rn(Part::total(sums), count);
#pragma unroll
  for (int i = 0; i < kValues; i++) sums[i] = 0;
  part.each([&](const float (&v)[kValues], int32_t) {
#pragma unroll
    for (int i = 0; i < kValues; i++) {
      const float away = __fadd_rn(v[i], -mean);
      sums[i] = __fadd_rn(sums[i], __fmul_rn(away, away));
    }
  });
  const float variance = __fdiv_rn(Part::total(sums), count);
  const float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(variance, c.eps)));
  part.each([&](const float (&v)[kValues], int32_t at) {
    float y[kValues];
#pragma unroll
    for (int i = 0; i < kValues; i++) y[i] = __fmul_rn(__fadd_rn(v[i], -mean), inverse);
    float of_columns[kValues];
    if (c.weight != nullptr) {
      Part::load(of_columns, c.weight + at);
#pragma unroll
      for (int i = 0; i < kValues; i++) y[i] = __fmul_rn(y[i], of_columns[i]);
    }
    if (c.bias != nullptr) {
      Part::load(of_columns, c.bias + at);
#pragma unroll
      for (int i = 0; i < kValues; i++) y[i] = __fadd_rn(y[i], of_columns[i]);
    }
    part.store(y, at);
  });
}

// exp within 2 units in the last place: 2^n times a polynomial (Cephes, expf).
__device__ __forceinline__ float row_exp(float x) {
  // NaN stays, which fminf and fmaxf would not let it.
  const float bounded = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
  const float n = rintf(__fmul_rn(bounded, 1.44269504088896341f));
  const float high = __fadd_rn(bounded, -__fmul_rn(n, 0.693359375f));
  const float r = __fadd_rn(high, -__fmul_rn(n, -2.12194440e-4f));
  float p = 1.9875691500e-4f;
  constexpr float kCoefficients[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                                     1.6666665459e-1f, 5.0000001201e-1f};
#pragma unroll
  for (const float coefficient : kCoefficients) p = __fadd_rn(__fmul_rn(p, r), coefficient);
  const float y = __fadd_rn(__fadd_rn(__fmul_rn(__fmul_rn(p, r), r), r), 1.0f);
  const int32_t whole = __float2int_rn(n);  // 0 of NaN
  const int32_t half = whole >> 1;
  const auto power = [](int32_t exponent) { return __int_as_float((exponent + 127) << 23); };
  return __fmul_rn(__fmul_rn(y, power(half)), power(whole - half));
}

template <int kValues>
__global__ void __launch_bounds__(kRowThreads)
    float_softmax(const __grid_constant__ SoftmaxRows c) {
  using Part = RowPart<kValues>;
  const Part part(c.x, c.out, c.rows, c.n);
  float most = __int_as_float(0xFF800000);  // negative infinity
  part.each([&](const float (&v)[kValues], int32_t) {
#pragma unroll
    for (int i = 0; i < kValues; i++) most = fmaxf(most, v[i]);
  });
  most = Part::largest(most);
  float sums[kValues] = {};
  part.each([&](const float (&v)[kValues], int32_t) {
#pragma unroll
    for (int i = 0; i < kValues; i++) {
      sums[i] = __fadd_rn(sums[i], row_exp(__fadd_rn(v[i], -most)));
    }
  });
  const float inverse = __fdiv_rn(1.0f, Part::total(sums));
  part.each([&](const float (&v)[kValues], int32_t at) {
    float y[kValues];
#pragma unroll
    for (int i = 0; i < kValues; i++) y[i] = __fmul_rn(row_exp(__fadd_rn(v[i], -most)), inverse);
    part.store(y, at);
  });
}

}  // namespace fastinfer::cuda
