// What nvcc makes of plain CUDA C++ that the kernels of csrc/cuda do not use yet.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// Registers cannot be indexed: an array in local memory.
extern "C" __global__ void local_array(const int* from, int* to) {
  int held[16];
  for (int i = 0; i < 16; i++) held[i] = from[threadIdx.x * 16 + i];
  int at = from[threadIdx.x] & 15, sum = 0;
  for (int i = 0; i < 5; i++) {
    sum = sum * 3 + held[at];
    held[at] = i;
    at = (at * 7 + 3) & 15;
  }
  to[threadIdx.x] = sum + held[at];
}

extern "C" __global__ void many_ways(const int* from, int* to) {
  const int x = from[threadIdx.x];
  int y;
  switch (x & 7) {
    case 0: y = x + 1; break;
    case 1: y = x * 3; break;
    case 2: y = x / 7; break;
    case 3: y = x % 11; break;
    case 4: y = ~x; break;
    case 5: y = x << 3; break;
    case 6: y = __popc(x); break;
    default: y = __clz(x); break;
  }
  to[threadIdx.x] = y;
}

// Sums of a block: shuffles, then shared memory and an atomic.
extern "C" __global__ void sums(const int* from, int* to, int count) {
  __shared__ int total, odd;
  if (threadIdx.x == 0) total = odd = 0;
  __syncthreads();
  const int at = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  int x = at < count ? from[at] : 0;
  const unsigned ballot = __ballot_sync(0xFFFFFFFFu, x & 1);
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, step);
  if (threadIdx.x % 32 == 0) {
    atomicAdd(&total, x);
    atomicAdd(&odd, __popc(ballot));
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    to[2 * blockIdx.x] = total;
    to[2 * blockIdx.x + 1] = odd;
  }
}

// Static and dynamic shared memory, a 3-D block, transposed.
extern "C" __global__ void turned(const float* from, float* to) {
  extern __shared__ float dynamic[];
  __shared__ float fixed[8];
  const int x = threadIdx.x, y = threadIdx.y, z = threadIdx.z;
  dynamic[(z * blockDim.y + y) * blockDim.x + x] = from[(z * blockDim.y + y) * blockDim.x + x];
  if (x == 0 && y == 0) fixed[z] = 0.5f * z;
  __syncthreads();
  to[(z * blockDim.x + x) * blockDim.y + y] =
      fmaf(dynamic[(z * blockDim.y + y) * blockDim.x + x], 3.0f, fixed[z]);
}

extern "C" __global__ void narrow(const float* from, __nv_bfloat16* b, __half* h, float* back) {
  const int i = threadIdx.x;
  b[i] = __float2bfloat16_rn(from[i]);
  h[i] = __float2half_rn(from[i]);
  back[i] = __bfloat162float(b[i]) + __half2float(h[i]);
}

extern "C" __global__ void dots(const int* a, const unsigned* b, long long* to) {
  const int i = threadIdx.x;
  const int dot = __dp4a(a[i], static_cast<int>(b[i]), 7);
  const unsigned turned = __funnelshift_l(b[i], static_cast<unsigned>(a[i]), i);
  to[i] = static_cast<long long>(a[i]) * b[i] / (i + 3) + dot + __umulhi(turned, b[i]) +
          __byte_perm(a[i], b[i], 0x2345);
}
