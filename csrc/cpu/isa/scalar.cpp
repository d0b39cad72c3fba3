// The table every CPU runs: plain loops, one statement per step of the reference.
#include <cmath>
#include <cstring>

#include "../kernel_table.h"
#include "../micro/channel_means.h"
#include "../micro/column_lines.h"
#include "../micro/float_rows.h"
#include "../micro/float_steps.h"
#include "../micro/interleave_rows.h"
#include "../micro/lerp_plane.h"
#include "../micro/sparse_float_rows.h"
#include "../micro/tiles.h"

namespace fastinfer {
namespace {

constexpr int kPanel = 8;
constexpr int kRows = 4;

// minf(NaN, bound) is the bound, as in the vector tables.
float min_or_bound(float x, float bound) { return x < bound ? x : bound; }

float clamp_float(float f, const Epilogue& e) {
  f = f < e.clamp_min ? e.clamp_min : f;
  return f > e.clamp_max ? e.clamp_max : f;
}

uint8_t requantize(float f, int32_t zero_point, int32_t qmin, int32_t qmax) {
  f = min_or_bound(f, static_cast<float>(qmax - zero_point));
  const float low = static_cast<float>(qmin - zero_point);
  f = f < low ? low : f;
  return static_cast<uint8_t>(static_cast<int32_t>(std::lrint(f)) + zero_point);
}

// Channel j of the panel, row (or pixel) r.
void store_one(int32_t acc, int64_t r, int j, const Epilogue& e) {
  const int64_t at = r * e.ldc + j;
  float f;
  if (e.kind == EpilogueKind::kDynamic) {
    const int32_t corrected = acc - e.row_zero_point[r * e.row_step] * e.weight_sum[j];
    f = static_cast<float>(corrected) * e.multiplier[j];
    f = f * e.row_scale[r * e.row_step];
    f = f + e.float_bias[j];
    e.out_f32[at] = clamp_float(f, e);
    return;
  }
  f = static_cast<float>(acc) * e.multiplier[j];
  if (e.kind == EpilogueKind::kFloat) {
    if (e.residual_f32 != nullptr) f = f + e.residual_f32[at];
    e.out_f32[at] = clamp_float(f, e);
    return;
  }
  if (e.residual_u8 != nullptr) {
    const float residual = static_cast<float>(e.residual_u8[at]) * e.residual_multiplier[j];
    f = f + residual;
  }
  e.out_u8[at] = requantize(f, e.out_zero_point, e.qmin, e.qmax);
}

template <int MR>
void gemm_tile(const uint8_t* rows, const GemmTiles& t, const Epilogue& e) {
  int32_t acc[MR][kPanel];
  for (auto& row : acc) std::memcpy(row, e.bias, sizeof(row));
  const auto* w = static_cast<const int8_t*>(t.weight);
  for (int run = 0; run < t.runs; run++) {
    for (int k = 0; k < t.singles; k++, w += kPanel * 4) {
      for (int r = 0; r < MR; r++) {
        const uint8_t* a = rows + r * t.row_stride + t.offsets[run] + k * 4;
        for (int j = 0; j < kPanel; j++) {
          const int8_t* b = w + j * 4;
          acc[r][j] += a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
        }
      }
    }
  }
  for (int r = 0; r < MR; r++) {
    for (int j = 0; j < e.n_valid; j++) store_one(acc[r][j], r, j, e);
  }
}

template <int MR>
void gemm(const GemmTiles& t, const Epilogue& epilogue) {
  each_tile<MR>(t, epilogue, [&](const uint8_t* a, const Epilogue& e, const ByteClamp&) {
    gemm_tile<MR>(a, t, e);
  });
}

void depthwise(const DepthwiseRun& run, const Epilogue& e) {
  const int8_t* weight = static_cast<const int8_t*>(run.weight);
  for (int64_t pixel = 0; pixel < run.pixels; pixel++) {
    for (int j = 0; j < e.n_valid; j++) {
      int32_t acc = e.bias[j];
      for (int t = 0; t < run.tap_groups; t++) {
        acc += run.taps[t][pixel * run.tap_step + j] * weight[t * kPanel + j];
      }
      Epilogue one = e;
      one.row_step = 0;
      store_one(acc, pixel, j, one);
    }
  }
}

void quantize(const float* x, uint8_t* q, int64_t n, float inverse_scale, int32_t zero_point) {
  for (int64_t i = 0; i < n; i++) q[i] = requantize(x[i] * inverse_scale, zero_point, 0, 255);
}

void dequantize(const uint8_t* q, float* x, int64_t n, float scale, int32_t zero_point) {
  for (int64_t i = 0; i < n; i++) x[i] = static_cast<float>(q[i] - zero_point) * scale;
}

void min_max(const float* x, int64_t n, float* lo, float* hi) {
  for (int64_t i = 0; i < n; i++) {
    *lo = x[i] < *lo ? x[i] : *lo;
    *hi = x[i] > *hi ? x[i] : *hi;
  }
}

void lookup(const uint8_t* x, uint8_t* out, int64_t n, const uint8_t* table) {
  for (int64_t i = 0; i < n; i++) out[i] = table[x[i]];
}

uint8_t requantize(float f, const Requantize& r) {
  return requantize(f * r.multiplier, r.out_zero_point, r.qmin, r.qmax);
}

void add(const RowPair& rows, const Requantize& r, float y_multiplier, int32_t y_zero_point) {
  for (int64_t i = 0; i < rows.n; i++) {
    const uint8_t y = rows.y[i % rows.period];
    const float first = static_cast<float>(rows.x[i] - r.x_zero_point) * r.multiplier;
    const float second = static_cast<float>(y - y_zero_point) * y_multiplier;
    rows.out[i] = requantize(first + second, r.out_zero_point, r.qmin, r.qmax);
  }
}

void mul(const RowPair& rows, const Requantize& r, int32_t y_zero_point) {
  for (int64_t i = 0; i < rows.n; i++) {
    const int32_t y = rows.y[i % rows.period] - y_zero_point;
    rows.out[i] = requantize(static_cast<float>((rows.x[i] - r.x_zero_point) * y), r);
  }
}

void requantize_row(const uint8_t* x, uint8_t* out, int64_t n, const Requantize& r) {
  for (int64_t i = 0; i < n; i++) {
    out[i] = requantize(static_cast<float>(x[i] - r.x_zero_point), r);
  }
}

void max(const MaxRun& run) {
  for (int64_t pixel = 0; pixel < run.pixels; pixel++) {
    for (int64_t j = 0; j < run.n; j++) {
      uint8_t largest = 0;
      for (int t = 0; t < run.count; t++) {
        const uint8_t value = run.taps[t][pixel * run.step + j];
        largest = value > largest ? value : largest;
      }
      run.out[pixel * run.n + j] = largest;
    }
  }
}

void mean(const MeanRun& run, const Requantize& r) {
  for (int64_t i = 0; i < run.outputs; i++) {
    for (int64_t j = 0; j < run.n; j++) {
      int32_t sum = 0;
      for (int64_t row = 0; row < run.rows; row++) {
        const uint8_t* x = run.x + i * run.step + row * run.row_stride + j;
        for (int64_t p = 0; p < run.pixels; p++) sum += x[p * run.pixel_stride] - r.x_zero_point;
      }
      run.out[i * run.out_step + j] = requantize(static_cast<float>(sum), r);
    }
  }
}

// One number as a vector, for kernels written over a Vec.
struct OneLane {
  using Int = int32_t;
  using Float = float;
  static constexpr int kLanes = 1;

  static float loadf(const float* p) { return *p; }
  static void storef(float* p, float v) { *p = v; }
  static float setf(float v) { return v; }
  static float addf(float a, float b) { return a + b; }
  static float subf(float a, float b) { return a - b; }
  static float mulf(float a, float b) { return a * b; }
  static float divf(float a, float b) { return a / b; }
  static float sqrtf(float v) { return std::sqrt(v); }
  static float absf(float v) { return std::fabs(v); }
  static float fmaf(float a, float b, float c) { return std::fma(a, b, c); }
  static float if_nan(float v, float then, float otherwise) { return v != v ? then : otherwise; }
  static float if_above(float a, float b, float then, float otherwise) {
    return a > b ? then : otherwise;
  }
  static float minf(float a, float b) { return a < b ? a : b; }
  static float maxf(float a, float b) { return a > b ? a : b; }
  static int32_t round(float v) { return static_cast<int32_t>(std::lrint(v)); }
  static float to_float(int32_t v) { return static_cast<float>(v); }
  static int32_t sub32(int32_t a, int32_t b) { return a - b; }
  static int32_t half32(int32_t v) { return v >> 1; }
  static float power_of_two(int32_t n) {
    const uint32_t bits = static_cast<uint32_t>(n + 127) << 23;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
};

void lerp(const LerpRun& run) {
  const float h0 = 1.0f - run.bottom_weight, h1 = run.bottom_weight;
  for (int64_t pixel = 0; pixel < run.pixels; pixel++) {
    const float w0 = 1.0f - run.right_weight[pixel], w1 = run.right_weight[pixel];
    for (int64_t j = 0; j < run.n; j++) {
      const int64_t left = run.left[pixel] * run.n + j, right = run.right[pixel] * run.n + j;
      const float top = run.top[left] * w0 + run.top[right] * w1;
      const float bottom = run.bottom[left] * w0 + run.bottom[right] * w1;
      run.out[pixel * run.n + j] = requantize(top * h0 + bottom * h1, 0, 0, 255);
    }
  }
}

}  // namespace

const KernelTable kScalarTable = {
    Isa::kScalar,
    {{GemmForm::kRows, kPanel, {}, {kRows, {gemm<1>, gemm<2>, gemm<3>, gemm<4>}}}},
    /*lanes=*/kPanel,
    /*depthwise_block=*/kPanel,
    /*depthwise_taps=*/1,
    /*depthwise_bytes=*/1,
    depthwise,
    /*depthwise_columns=*/nullptr,
    /*winograd=*/{},
    quantize,
    interleave3_bytes,
    column_bytes,
    dequantize,
    min_max,
    lookup,
    /*widen=*/nullptr,
    add,
    mul,
    requantize_row,
    max,
    mean,
    lerp,
    layer_norm_rows<OneLane>,
    softmax_rows<OneLane>,
    channel_means,
    lerp_plane,
    float_kernels<OneLane>(),
    sparse_float_kernels<OneLane>(std::make_integer_sequence<int, 8>()),
    /*peak=*/nullptr,
    /*finish=*/nullptr,
};

}  // namespace fastinfer
