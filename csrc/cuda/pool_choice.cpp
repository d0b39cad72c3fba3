#include "pool.h"

#include <algorithm>

namespace fastinfer::cuda {

int64_t pooled_size(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                    int64_t dilation, bool ceil_mode) {
  const int64_t rest = size + 2 * padding - dilation * (kernel - 1) - 1;
  const int64_t more = ceil_mode ? stride - 1 : 0;
  // Rounded down, of negative numbers too.
  int64_t count = (rest + more) / stride + 1;
  if ((rest + more) % stride < 0) count--;
  if (ceil_mode && (count - 1) * stride >= size + padding) count--;
  return count;
}

int32_t pool_bytes(const PoolCall& call) {
  const uint64_t all = reinterpret_cast<uintptr_t>(call.x) | reinterpret_cast<uintptr_t>(call.out) |
                       static_cast<uint64_t>(call.channels);
  return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : 1;
}

int32_t choose_splits(const PoolCall& call, int32_t multiprocessors) {
  constexpr int64_t kFewPixels = 16;   // that a thread sums by itself
  constexpr int64_t kShare = 1 << 16;  // bytes of a block that are worth a second launch
  const bool is_global = call.h.kernel == 0 && call.h.out == 1 && call.w.out == 1;
  const int64_t pixels = int64_t{call.h.size} * call.w.size;
  if (!is_global || pixels <= kFewPixels) return 0;
  // A block has up to 256 channels.
  const int64_t chunks = (call.channels + 255) / 256, blocks = call.images * chunks;
  const int64_t wanted = (2 * multiprocessors + blocks - 1) / blocks;
  const int64_t most = pixels * std::min(call.channels, 256) / kShare;
  return static_cast<int32_t>(std::clamp<int64_t>(std::min(wanted, most), 1, 64));
}

}  // namespace fastinfer::cuda
