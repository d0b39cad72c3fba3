// The launchers of the ops between layers, for ctypes.
#include "../../../csrc/cuda/pointwise.h"
#include "../../../csrc/cuda/pool.h"
#include "../../../csrc/cuda/upsample.h"

using namespace fastinfer::cuda;

extern "C" {

int ptx_launch_pair(const PairCall* call) { return launch_pair(*call, nullptr); }

int ptx_launch_lookup(const LookupCall* call) { return launch_lookup(*call, nullptr); }

int ptx_launch_dequantize(const DequantizeCall* call) { return launch_dequantize(*call, nullptr); }

int ptx_launch_cat(const CatCall* call) { return launch_cat(*call, nullptr); }

int ptx_launch_max_pool(const PoolCall* call) { return launch_max_pool(*call, nullptr); }

int ptx_launch_average(const AverageCall* call) { return launch_average(*call, nullptr); }

int ptx_launch_split_average(const AverageCall* call, int splits) {
  return launch_split_average(*call, splits, nullptr);
}

int ptx_launch_finish_average(const AverageCall* call, int splits) {
  return launch_finish_average(*call, splits, nullptr);
}

int ptx_launch_upsample(const UpsampleCall* call) { return launch_upsample(*call, nullptr); }

int ptx_pooled_size(int size, int kernel, int stride, int padding, int dilation, bool ceil_mode) {
  return static_cast<int>(pooled_size(size, kernel, stride, padding, dilation, ceil_mode));
}

int ptx_choose_splits(const PoolCall* call, int multiprocessors) {
  return choose_splits(*call, multiprocessors);
}

void ptx_upsample_axis(UpsampleAxis* axis, int size, int out, double factor, bool bilinear,
                       bool align_corners) {
  *axis = bilinear ? linear_axis(size, out, factor, align_corners)
                   : nearest_axis(size, out, factor);
}

// Sizes of the structs that Python fills too.
int ptx_between_size(int which) {
  const int sizes[] = {sizeof(PairCall),    sizeof(LookupCall),  sizeof(DequantizeCall),
                       sizeof(CatCall),     sizeof(AverageCall), sizeof(UpsampleCall)};
  return sizes[which];
}

}  // extern "C"
