// Weights that have left the caches before they are read again. Torch-free.
#pragma once

#include <cstdint>

namespace fastinfer {

// Whether calls that read so many bytes of weights each should ask for them with Cache::kL2Once: on an AMD
// CPU, if they would take more than a quarter of its L3, which other cores share.
//
// There they would push out activations, and what Python reads between two calls. And on Zen 4 and 5 the
// other hint is dropped at times, so that a kernel waits for memory: of ResNet-50 on Zen 5 either way cost 2
// to 5 %. Intel's CPUs bring such lines into L1 only, which is too small for a panel.
bool are_read_once(int64_t weight_bytes);

}  // namespace fastinfer
