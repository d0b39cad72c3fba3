// A packed weight as typed pointers. Torch-free.
#pragma once

#include "../epilogue.h"
#include "../packed.h"
#include "kernel_table.h"

namespace fastinfer {

struct PackedView {
  const PackedHeader* header = nullptr;
  const uint8_t* base = nullptr;
  const KernelTable* table = nullptr;
  // The header's, of GEMMs: to divide for them at every panel takes as long as a tile.
  int quads = 0, step_quads = 0;
  bool is_read_once = false;  // see read_once.h

  PackedView() = default;
  PackedView(const PackedHeader* h, const uint8_t* data, const KernelTable* kernels)
      : header(h), base(data), table(kernels) {
    if (h->op == static_cast<int32_t>(PackedOp::kDepthwiseConv2d)) return;
    quads = h->quads();
    step_quads = h->step_quads();
  }

  template <class T>
  const T* section(int64_t offset) const {
    return offset ? reinterpret_cast<const T*>(base + offset) : nullptr;
  }
  const uint8_t* lookup_table() const { return section<uint8_t>(header->table); }
  int64_t panels() const { return int64_t{header->panel_groups()} * header->panels_per_group; }
  int64_t n_per_group() const { return header->n / header->panel_groups(); }  // of panels

  // What a call of m rows reads: the image for few rows, where there is one and these are few.
  PackedView for_rows(int64_t m) const {
    if (header->pixels == 0 || m > header->pixels) return *this;
    PackedView image{section<PackedHeader>(header->index), base, table};
    image.is_read_once = is_read_once;
    return image;
  }

  // The epilogue for channels starting at `at` in the padded per-channel vectors; outputs and
  // residuals are the caller's.
  Epilogue epilogue(int64_t at) const;
};

}  // namespace fastinfer
