#include "pure_bindings.h"

#include <pybind11/stl.h>

#include <map>
#include <stdexcept>

#include "gemm_costs.h"
#include "packed_sizes.h"
#include "patch.h"

namespace py = pybind11;

namespace fastinfer::cuda {
namespace {

struct Field {
  const char* name;
  double SparseCosts::*value;
};

constexpr Field kFields[] = {
    {"two_bytes", &SparseCosts::two_bytes},
    {"two_multiply_adds", &SparseCosts::two_multiply_adds},
    {"two_stage", &SparseCosts::two_stage},
    {"two_turn", &SparseCosts::two_turn},
    {"two_end", &SparseCosts::two_end},
    {"two_meeting", &SparseCosts::two_meeting},
    {"two_windows", &SparseCosts::two_windows},
    {"two_far", &SparseCosts::two_far},
    {"gather_bytes", &SparseCosts::gather_bytes},
    {"gather_multiply_adds", &SparseCosts::gather_multiply_adds},
    {"gather_stage", &SparseCosts::gather_stage},
    {"gather_load", &SparseCosts::gather_load},
    {"gather_turn", &SparseCosts::gather_turn},
    {"gather_end", &SparseCosts::gather_end},
    {"gather_windows", &SparseCosts::gather_windows},
    {"patch_bytes", &SparseCosts::patch_bytes},
    {"patch_multiply_adds", &SparseCosts::patch_multiply_adds},
    {"patch_stage", &SparseCosts::patch_stage},
    {"patch_panel", &SparseCosts::patch_panel},
    {"patch_end", &SparseCosts::patch_end},
};
static_assert(sizeof(kFields) / sizeof(Field) * sizeof(double) == sizeof(SparseCosts));

std::map<std::string, double> costs_in_force() {
  const SparseCosts costs;
  std::map<std::string, double> found;
  for (const Field& field : kFields) found[field.name] = costs.*field.value;
  return found;
}

SparseCosts costs_of(const std::map<std::string, double>& values) {
  SparseCosts costs;
  for (const auto& [name, value] : values) {
    bool is_known = false;
    for (const Field& field : kFields) {
      if (name != field.name) continue;
      costs.*field.value = value;
      is_known = true;
    }
    if (!is_known) throw std::invalid_argument("cycles: no constant " + name);
  }
  return costs;
}

double cycles(const std::string& kernel, int32_t block_m, int32_t block_n, int32_t cluster,
              int64_t m, int32_t n, int32_t k, bool is_windows, int32_t gather_steps,
              int32_t patch_tiles, int32_t patch_bytes,
              const std::map<std::string, double>& constants, int32_t multiprocessors) {
  GemmDesc desc{m, n, (k + 15) / 16 * 16, 1,
                is_windows ? RowSource::kPixels : RowSource::kMatrix, 90, multiprocessors};
  const Tile tile{block_m, block_n, cluster};
  const SparseCosts costs = costs_of(constants);
  desc.gather_channels = block_n;
  desc.gather_steps = gather_steps;
  desc.patch_tiles = patch_tiles;
  desc.patch_bytes = patch_bytes;
  if (kernel == "mma") return mma_cycles(tile, desc);
  if (kernel == "wgmma") return wgmma_cycles(tile, desc);
  if (kernel == "sparse_mma") return sparse_mma_cycles(tile, desc);
  if (kernel == "sparse_wgmma") return sparse_wgmma_cycles(tile, desc, costs);
  if (kernel == "gather_wgmma") return gather_cycles(tile, desc, costs);
  if (kernel == "patch_wgmma") return patch_cycles(desc, costs);
  throw std::invalid_argument("cycles: no kernel " + kernel);
}

std::pair<int32_t, int32_t> patches(int64_t images, int32_t channels, int32_t size,
                                    int32_t kernel, int32_t stride) {
  GemmCall call{};
  const int32_t out = size / stride;
  call.m = images * out * out;
  call.groups = 1;
  call.run = channels;
  call.windows = {size,   size,   channels,   out,        out, kernel, kernel,
                  stride, stride, kernel / 2, kernel / 2, 1,   1};
  GemmDesc desc{};
  desc.source = RowSource::kPixels;
  describe_patches(desc, call);
  return {desc.patch_tiles, desc.patch_bytes};
}

}  // namespace

void bind_pure(py::module_& m) {
  m.def("sparse_costs", &costs_in_force, "The constants of the sparse kernels' costs.");
  m.def("cycles", &cycles, py::arg("kernel"), py::arg("block_m"), py::arg("block_n"),
        py::arg("cluster"), py::arg("m"), py::arg("n"), py::arg("k"),
        py::arg("is_windows") = false, py::arg("gather_steps") = 1, py::arg("patch_tiles") = 0,
        py::arg("patch_bytes") = 0, py::arg("constants") = std::map<std::string, double>{},
        py::arg("multiprocessors") = 132,
        "Cycles by estimate of a product on a kernel and tile, with other constants if asked.");
  m.def("patches", &patches, py::arg("images"), py::arg("channels"), py::arg("size"),
        py::arg("kernel"), py::arg("stride"),
        "Tiles along m, and bytes of x for each, of a convolution's patches; zeros: none.");
  py::class_<PackedSizes>(m, "PackedSizes", "Lengths of packed weights, one for each shape.")
      .def(py::init<>())
      .def("claim", [](PackedSizes& self, const py::bytes& shape,
                       int64_t least) { return self.claim(shape, least); })
      .def("adopt", [](PackedSizes& self, const py::bytes& shape,
                       int64_t bytes) { return self.adopt(shape, bytes); });
  m.def(
      "shape_key",
      [](const std::string& header) {
        PackedHeader h;
        if (header.size() < sizeof(h)) throw std::invalid_argument("shape_key: no header");
        std::memcpy(&h, header.data(), sizeof(h));
        return py::bytes(shape_key(h));
      },
      py::arg("header"), "What the host reads of a packed weight's header, as bytes.");
}

}  // namespace fastinfer::cuda
