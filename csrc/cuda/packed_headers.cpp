#include "packed_headers.h"

#include <mutex>
#include <unordered_map>

#include "choice.h"
#include "pack_gathered.h"
#include "packed_sizes.h"
#include "patch.h"

namespace fastinfer::cuda {
namespace {

// Addresses are used again, so an entry may be of a buffer that is gone. It is believed when it
// fits the call, above all the buffer's length: weights of one length have one shape in a process
// (packed_sizes.h), and values kernels read themselves. When it does not fit, the device is asked.
class Headers {
 public:
  void set(const void* data, const PackedHeader& header) {
    const std::lock_guard lock(mutex_);
    if (entries_.size() >= kMost) entries_.clear();
    entries_[data] = header;
  }
  std::optional<PackedHeader> find(const void* data) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(data);
    if (found == entries_.end()) return std::nullopt;
    return found->second;
  }

 private:
  static constexpr size_t kMost = 65536;
  std::mutex mutex_;
  std::unordered_map<const void*, PackedHeader> entries_;
};

Headers& headers() {
  static Headers instance;
  return instance;
}

const char* op_name(int32_t op) {
  constexpr const char* kNames[] = {"linear", "conv2d", "depthwise_conv2d"};
  return op >= 0 && op < 3 ? kNames[op] : "an unknown op";
}

bool fits(const PackedHeader& h, const Tensor& packed, PackedOp wanted, bool float_output,
          bool is_dynamic) {
  return std::memcmp(h.magic, kPackedMagic, 4) == 0 && h.version == kPackedVersion &&
         h.total_bytes == packed.numel() && h.op == static_cast<int32_t>(wanted) &&
         h.layout == kLayoutCuda && h.has(kFlagDynamic) == is_dynamic &&
         h.has(kFlagFloatOutput) == float_output;
}

void check_header(const char* op, const PackedHeader& h, const Tensor& packed, PackedOp wanted,
                  bool float_output, bool is_dynamic) {
  STD_TORCH_CHECK(std::memcmp(h.magic, kPackedMagic, 4) == 0 && h.version == kPackedVersion, op,
                  ": packed: not a packed weight of version ", kPackedVersion,
                  "; pack it with int8_prepack");
  STD_TORCH_CHECK(h.total_bytes == packed.numel(), op, ": packed: expected ", h.total_bytes,
                  " bytes, got ", packed.numel());
  STD_TORCH_CHECK(h.op == static_cast<int32_t>(wanted), op,
                  ": packed: expected a weight packed for ",
                  op_name(static_cast<int32_t>(wanted)), ", got one for ", op_name(h.op));
  STD_TORCH_CHECK(h.layout == kLayoutCuda, op, ": packed: expected layout cuda, got ",
                  h.layout == 0 ? "canonical" : "that of a CPU",
                  "; pack it again, from a weight on the GPU");
  STD_TORCH_CHECK(h.has(kFlagDynamic) == is_dynamic, op, ": packed: expected a ",
                  is_dynamic ? "dynamic weight, got a static one"
                             : "static weight, got a dynamic one");
  STD_TORCH_CHECK(h.has(kFlagFloatOutput) == float_output, op,
                  ": float_output does not match the packed weight, which answers in ",
                  h.has(kFlagFloatOutput) ? "float32" : "uint8");
}

// Where a buffer lies that may be a packed weight.
const void* checked_buffer(const char* op, const Tensor& packed, const DeviceScope& scope) {
  check_dtype(op, "packed", packed, ScalarType::Byte);
  scope.check(op, "packed", packed);
  STD_TORCH_CHECK(packed.dim() == 1 && packed.is_contiguous() &&
                      packed.numel() >= kPackedHeaderBytes,
                  op, ": packed: expected a contiguous 1-D buffer of at least ",
                  kPackedHeaderBytes, " bytes, got ", shape_text(packed));
  const void* data = packed.const_data_ptr();
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(data) % kSectionAlign == 0, op,
                  ": packed: expected a buffer aligned to ", kSectionAlign,
                  " bytes; clone it first");
  return data;
}

// The bytes at the start of a buffer, from the device, which is waited for.
PackedHeader read_header(const char* op, const void* data, const DeviceScope& scope) {
  STD_TORCH_CHECK(!is_capturing(scope.stream()), op,
                  ": packed: a buffer that this process has not used before cannot be checked "
                  "while a CUDA graph is captured; call the op once before");
  PackedHeader h;
  check_launch(op, read_device(&h, data, sizeof(h), scope.stream()));
  return h;
}

}  // namespace

void remember_header(const void* data, const PackedHeader& header) {
  headers().set(data, header);
}

PackedOp packed_op(const char* op, const Tensor& packed, const DeviceScope& scope) {
  const void* data = checked_buffer(op, packed, scope);
  const auto noted = headers().find(data);
  if (noted && noted->total_bytes == packed.numel()) return static_cast<PackedOp>(noted->op);
  return static_cast<PackedOp>(read_header(op, data, scope).op);
}

PackedHeader checked_header(const char* op, const Tensor& packed, PackedOp wanted,
                            bool float_output, const DeviceScope& scope, bool is_dynamic) {
  const void* data = checked_buffer(op, packed, scope);
  if (const auto noted = headers().find(data)) {
    if (fits(*noted, packed, wanted, float_output, is_dynamic)) return *noted;
  }
  const PackedHeader h = read_header(op, data, scope);
  check_header(op, h, packed, wanted, float_output, is_dynamic);
  STD_TORCH_CHECK(packed_sizes().adopt(shape_key(h), h.total_bytes), op,
                  ": packed: expected a buffer of this process, got one of ", h.total_bytes,
                  " bytes from elsewhere, and weights of another shape have that length here; "
                  "pack it again with int8_prepack");
  remember_header(data, h);
  return h;
}

void check_residual(const char* op, const PackedHeader& header,
                    const std::optional<Tensor>& residual, const std::vector<int64_t>& shape,
                    const DeviceScope& scope) {
  STD_TORCH_CHECK(header.has(kFlagResidual) == residual.has_value(), op,
                  ": residual: the weight was packed for ",
                  header.has(kFlagResidual) ? "a residual" : "no residual");
  if (!residual) return;
  scope.check(op, "residual", *residual);
  check_dtype(op, "residual", *residual,
              header.has(kFlagFloatOutput) ? ScalarType::Float : ScalarType::Byte);
  STD_TORCH_CHECK(sizes_of(*residual) == shape, op,
                  ": expected residual with the result's shape, got ", shape_text(*residual));
}

GemmCall bind_call(const PackedHeader& header, const Tensor& packed,
                   const std::optional<Tensor>& residual, const Tensor& out,
                   const DeviceScope& scope) {
  GemmCall call{};
  call.packed = static_cast<const uint8_t*>(packed.const_data_ptr());
  call.residual = residual ? residual->const_data_ptr() : nullptr;
  call.out = out.mutable_data_ptr();
  call.sparse = header.index;
  call.gather_channels = header.index != 0 ? header.pixels : 0;
  if (call.gather_channels != 0) {
    const int64_t images = header.index_bytes / header.groups /
                           (gathered_bytes({header.pixels, 1}, header.n / header.groups,
                                           padded_k(header)) /
                            gathered_block_bytes({header.pixels, 1}));
    call.gather_steps = static_cast<int32_t>((images - kGatherPlaces) / (32 * header.pixels));
  }
  call.n = header.n / header.groups;
  call.n_padded = header.panels_per_group * header.nr;
  call.run = header.run;
  call.run_padded = padded_run(header.run);
  call.k_padded = padded_k(header);
  call.groups = header.groups;
  call.device = scope.device();
  call.pixel_bytes = pixel_bytes(header.run);
  return call;
}

DeviceFacts checked_facts(const char* op, const DeviceScope& scope) {
  const DeviceFacts facts = device_facts(scope.device());
  STD_TORCH_CHECK(facts.capability >= 80, op, ": expected a GPU of compute capability 8.0 or ",
                  "later, got ", facts.capability / 10, ".", facts.capability % 10,
                  "; keep this layer on the CPU");
  return facts;
}

void run_gemm(const char* op, const GemmCall& call, const DeviceScope& scope) {
  const DeviceFacts facts = checked_facts(op, scope);
  if (const auto first = first_conv_in_force(call, facts.multiprocessors)) {
    check_launch(op, launch_first_conv(call, *first, scope.stream()));
    return;
  }
  GemmDesc desc{call.m,
                call.n,
                call.k_padded,
                call.groups,
                row_source(call),
                facts.capability,
                facts.multiprocessors,
                call.sparse != 0,
                call.gather_channels,
                call.gather_steps,
                call.pixel_bytes};
  if (call.gather_channels != 0) describe_patches(desc, call);
  check_launch(op, launch_gemm(call, config_in_force(desc), scope.stream()));
}

}  // namespace fastinfer::cuda
