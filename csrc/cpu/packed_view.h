// A packed weight as typed pointers, checked against the op that reads it.
#pragma once

#include "../epilogue.h"
#include "../packed.h"
#include "../tensor_check.h"
#include "kernel_table.h"

namespace fastinfer {

struct PackedView {
  const PackedHeader* header;
  const uint8_t* base;
  const KernelTable* table;

  template <class T>
  const T* section(int64_t offset) const {
    return offset ? reinterpret_cast<const T*>(base + offset) : nullptr;
  }
  const uint8_t* lookup_table() const { return section<uint8_t>(header->table); }
  int64_t panels() const { return int64_t{header->groups} * header->panels_per_group; }
  int64_t n_per_group() const { return header->n / header->groups; }

  // The epilogue for channels starting at `at` in the padded per-channel vectors; outputs and
  // residuals are the caller's.
  Epilogue epilogue(int64_t at) const;
};

// Checks magic, version, size, op, mode and that the buffer was packed for the ISA in force.
PackedView view_packed(const char* op, const Tensor& packed, PackedOp wanted, bool dynamic,
                       bool float_output);

// The residual a weight was packed with must come with the call, and only then. `shape` is the
// result's. Returns its data, uint8 or float32.
void check_residual(const char* op, const PackedView& view, const std::optional<Tensor>& residual,
                    const std::vector<int64_t>& shape);

}  // namespace fastinfer
