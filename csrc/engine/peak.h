// The most multiply-adds this machine does. Torch-free.
#pragma once

#include "../cpu/kernel_table.h"

namespace fastinfer::engine {

// int8 multiply-adds a second on `threads` threads of the pool at once: the table's loop in
// registers, the best of some runs. Takes about 20 ms. 0 where the table has no such loop.
double measure_peak(const KernelTable& table, int threads);

}  // namespace fastinfer::engine
