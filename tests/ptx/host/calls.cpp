// The launchers and pure host functions of csrc/cuda, for ctypes.
#include "../../../csrc/cuda/choice.h"
#include "../../../csrc/cuda/gemm.h"
#include "../../../csrc/cuda/pack_gathered.h"
#include "../../../csrc/cuda/quantize.h"
#include "recorder.h"

#include <algorithm>

using namespace fastinfer::cuda;

extern "C" {

void ptx_set_recorder(Callback to, int multiprocessors) { set_recorder(to, multiprocessors); }

int ptx_launch_gemm(const GemmCall* call, const GemmConfig* config) {
  return launch_gemm(*call, *config, nullptr);
}

// Rows of one group [n][k] as an image for sparse tensor cores; its bytes, or 0 where the zeros are
// not 2:4. Nothing is written where `image` is null.
int64_t ptx_pack_two_of_four(const int8_t* weight, int n, int k, int run, int run_padded,
                             int k_padded, uint8_t* image) {
  const WeightRows rows{weight, n, k, run, run_padded};
  if (!is_two_of_four(rows)) return 0;
  if (image != nullptr) {
    const std::vector<uint8_t> packed = pack_two_of_four(rows, k_padded);
    std::copy(packed.begin(), packed.end(), image);
  }
  return two_of_four_bytes(n, k_padded);
}

// Zeros for strip and lanes: those that are chosen.
int ptx_launch_depthwise(const GemmCall* call, bool float_output, int strip, int lanes) {
  force_depthwise(strip, lanes);
  return launch_depthwise(*call, depthwise_in_force(*call, float_output), nullptr);
}

// A first layer's own kernel on a device of so many multiprocessors; -1 where it has none.
int ptx_launch_first_conv(const GemmCall* call, int multiprocessors) {
  const auto config = choose_first_conv(*call, multiprocessors);
  return config ? launch_first_conv(*call, *config, nullptr) : -1;
}

// How a first layer would run: 9 numbers, as FirstConvConfig has them; false where it would not.
bool ptx_choose_first_conv(const GemmCall* call, int multiprocessors, int* to) {
  const auto f = choose_first_conv(*call, multiprocessors);
  if (!f) return false;
  const int all[] = {f->taps,    f->rows,    f->columns, f->tiles_y, f->tiles_x,
                     f->tiles,   f->in_rows, f->pitch,   f->blocks};
  for (int i = 0; i < 9; i++) to[i] = all[i];
  return true;
}

int ptx_launch_quantize(const QuantizeCall* call) { return launch_quantize(*call, nullptr); }

int ptx_launch_quantize_planes(const QuantizeCall* call) {
  return launch_quantize_planes(*call, nullptr);
}

// The same of channels that keep the same inputs; steps: how many are needed, 0 where it is none.
int ptx_gather_steps(const int8_t* weight, int n, int k, int run, int run_padded, int k_padded,
                     int channels) {
  return gather_steps({weight, n, k, run, run_padded}, k_padded, channels);
}

int64_t ptx_pack_gathered(const int8_t* weight, int n, int k, int run, int run_padded, int k_padded,
                          int channels, int steps, int pixel_bytes, uint8_t* image) {
  const GatherShape shape{channels, steps};
  if (image != nullptr) {
    const std::vector<uint8_t> packed =
        pack_gathered({weight, n, k, run, run_padded}, k_padded, shape, pixel_bytes);
    std::copy(packed.begin(), packed.end(), image);
  }
  return gathered_bytes(shape, n, k_padded);
}

int ptx_row_source(const GemmCall* call) { return static_cast<int>(row_source(*call)); }

int ptx_pixel_bytes(int run) { return pixel_bytes(run); }

// Sizes of the structs that Python fills too.
int ptx_size(int which) {
  const int sizes[] = {sizeof(GemmCall), sizeof(GemmConfig), sizeof(QuantizeCall)};
  return sizes[which];
}

}  // extern "C"
