// The launchers of ops that look at whole rows, for ctypes.
#include "../../../csrc/cuda/float_rows.h"
#include "../../../csrc/cuda/quantize_rows.h"

using namespace fastinfer::cuda;

extern "C" {

int ptx_launch_layer_norm(const NormRows* call) { return launch_layer_norm(*call, nullptr); }

int ptx_launch_softmax(const SoftmaxRows* call) { return launch_softmax(*call, nullptr); }

int ptx_launch_quantize_rows(const RangeCall* call) { return launch_quantize_rows(*call, nullptr); }

int ptx_launch_find_bounds(const RangeCall* call) { return launch_find_bounds(*call, nullptr); }

int ptx_launch_quantize_split(const RangeCall* call) {
  return launch_quantize_split(*call, nullptr);
}

int ptx_range_splits(int64_t rows, int64_t n, int multiprocessors) {
  return range_splits(rows, n, multiprocessors);
}

// Sizes of the structs that Python fills too.
int ptx_rows_size(int which) {
  const int sizes[] = {sizeof(NormRows), sizeof(SoftmaxRows), sizeof(RangeCall)};
  return sizes[which];
}

}  // extern "C"
