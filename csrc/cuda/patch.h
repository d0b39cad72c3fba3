// Patches of an image: the pixels that a tile of a convolution's outputs reads, all taps together.
// No torch, no CUDA types.
#pragma once

#include "gemm.h"

namespace fastinfer::cuda {

// A tile is `rows` whole lines of outputs of one image, or `images` whole images of so many lines.
struct PatchShape {
  int32_t rows, images;   // 0: such tiles there are none
  int32_t width, height;  // of a patch of one image
  int32_t pixel_bytes;    // that are copied of a pixel: 128 or 64

  constexpr int32_t pixels() const { return width * height * images; }
};

constexpr int32_t kPatchRows = 128;            // outputs of a tile, at most
constexpr int32_t kPatchBytes = 36 * 1024;     // of a stage

// Tiles of a convolution of stride 1 with its channels in one group, 64 or a multiple of 128.
inline PatchShape patch_shape(const GemmCall& call) {
  const Windows& w = call.windows;
  const bool has_patches = call.groups == 1 && w.stride_h == 1 && w.stride_w == 1 &&
                           w.dilation_h == 1 && w.dilation_w == 1 && w.kh * w.kw > 1 &&
                           (call.run == 64 || call.run % 128 == 0) && w.out_width <= kPatchRows;
  if (!has_patches) return {0, 0, 0, 0, 0};
  const int32_t most = kPatchRows / w.out_width;
  PatchShape s{};
  s.rows = most < w.out_height ? most : w.out_height;
  // Lines in tiles that are as full as each other.
  const int32_t tiles = (w.out_height + s.rows - 1) / s.rows;
  s.rows = (w.out_height + tiles - 1) / tiles;
  s.images = tiles == 1 ? kPatchRows / (s.rows * w.out_width) : 1;
  s.width = w.out_width + w.kw - 1;
  s.height = s.rows + w.kh - 1;
  s.pixel_bytes = call.run == 64 ? 64 : 128;
  // Where the next line begins eights of pixels after this one's end, lanes that load from both
  // meet no bank twice.
  PatchShape wider = s;
  wider.width += (8 - (s.width - w.out_width) % 8) % 8;
  if (wider.pixels() * s.pixel_bytes <= kPatchBytes) s = wider;
  const bool fits = s.pixels() * s.pixel_bytes <= kPatchBytes && s.width <= 256 &&
                    s.height <= 256 && s.images <= 256;
  return fits ? s : PatchShape{0, 0, 0, 0, 0};
}

// What the choice of a config depends on of these.
inline void describe_patches(GemmDesc& desc, const GemmCall& call) {
  const PatchShape s = patch_shape(call);
  if (s.rows == 0 || desc.source != RowSource::kPixels) return;
  const Windows& w = call.windows;
  const int64_t images = call.m / (int64_t{w.out_height} * w.out_width);
  desc.patch_tiles = static_cast<int32_t>((images + s.images - 1) / s.images *
                                          ((w.out_height + s.rows - 1) / s.rows));
  desc.patch_bytes = s.pixels() * call.run;
}

}  // namespace fastinfer::cuda
