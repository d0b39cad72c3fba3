// The launchers and pure host functions of csrc/cuda, for ctypes.
#include "../../../csrc/cuda/choice.h"
#include "../../../csrc/cuda/gemm.h"
#include "../../../csrc/cuda/quantize.h"
#include "recorder.h"

using namespace fastinfer::cuda;

extern "C" {

void ptx_set_recorder(Callback to, int multiprocessors) { set_recorder(to, multiprocessors); }

int ptx_launch_gemm(const GemmCall* call, const GemmConfig* config) {
  return config->kernel == GemmKernel::kWgmma ? launch_wgmma(*call, *config, nullptr)
                                              : launch_mma(*call, *config, nullptr);
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

int ptx_row_source(const GemmCall* call) { return static_cast<int>(row_source(*call)); }

int ptx_pixel_bytes(int run) { return pixel_bytes(run); }

// Sizes of the structs that Python fills too.
int ptx_size(int which) {
  const int sizes[] = {sizeof(GemmCall), sizeof(GemmConfig), sizeof(QuantizeCall)};
  return sizes[which];
}

}  // extern "C"
