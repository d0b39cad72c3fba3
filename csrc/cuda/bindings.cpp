// What is no tensor op: which config a product gets, and asking for another.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../packed.h"
#include "choice.h"
#include "pure_bindings.h"

namespace py = pybind11;
using fastinfer::cuda::GemmConfig;
using fastinfer::cuda::GemmDesc;
using fastinfer::cuda::GemmKernel;
using fastinfer::cuda::RowSource;

namespace {

py::dict dict_of(const GemmConfig& c) {
  using namespace py::literals;
  constexpr const char* kNames[] = {"mma",        "wgmma",      "sparse_wgmma", "gather_wgmma",
                                    "sparse_mma", "patch_wgmma"};
  return py::dict("kernel"_a = kNames[static_cast<int>(c.kernel)], "block_m"_a = c.block_m,
                  "block_n"_a = c.block_n, "cluster"_a = c.cluster);
}

RowSource source_of(const std::string& name) {
  if (name == "matrix") return RowSource::kMatrix;
  if (name == "pixels") return RowSource::kPixels;
  if (name == "windows") return RowSource::kWindows;
  if (name == "narrow") return RowSource::kNarrow;
  throw std::invalid_argument("choose_config: expected source matrix, pixels, windows or "
                              "narrow, got " + name);
}

py::dict choose(int64_t m, int32_t n, int32_t k, int32_t groups, const std::string& source,
                int32_t capability, int32_t multiprocessors, bool has_sparse,
                int32_t gather_channels, int32_t gather_steps, int32_t patch_tiles,
                int32_t patch_bytes) {
  const int32_t padded = (k + 15) / 16 * 16;
  return dict_of(fastinfer::cuda::choose_config(
      GemmDesc{m, n, padded, groups, source_of(source), capability, multiprocessors, has_sparse,
               gather_channels, gather_steps, 128, patch_tiles, patch_bytes}));
}

py::list known() {
  py::list all;
  for (const GemmConfig& config : fastinfer::cuda::known_configs()) all.append(dict_of(config));
  return all;
}

py::list list_of(const std::vector<GemmConfig>& configs) {
  py::list all;
  for (const GemmConfig& config : configs) all.append(dict_of(config));
  return all;
}

py::dict choose_strip(int64_t images, int32_t channels, int32_t out_height, int32_t out_width,
                      int32_t kernel, int32_t stride) {
  using namespace py::literals;
  fastinfer::cuda::GemmCall call{};
  call.m = images * out_height * out_width;
  call.n = channels;
  call.windows = {out_height * stride, out_width * stride, channels, out_height, out_width,
                  kernel,              kernel,             stride,   stride,     kernel / 2,
                  kernel / 2,          1,                  1};
  const auto c = fastinfer::cuda::choose_depthwise(call, false);
  return py::dict("kernel"_a = c.kernel, "stride"_a = c.stride, "strip"_a = c.strip,
                  "lanes"_a = c.lanes);
}

}  // namespace

PYBIND11_MODULE(_C_cuda, m) {
  m.doc() = "fastinfer's compiled CUDA kernels";
  m.def("choose_config", &choose, py::arg("m"), py::arg("n"), py::arg("k"), py::arg("groups"),
        py::arg("source"), py::arg("capability"), py::arg("multiprocessors"),
        py::arg("has_sparse") = false, py::arg("gather_channels") = 0, py::arg("gather_steps") = 0,
        py::arg("patch_tiles") = 0, py::arg("patch_bytes") = 0,
        "The kernel and tile of a product, as a dict. has_sparse: of a 2:4 weight, or of one of "
        "which so many channels keep the same inputs, so many steps of 32 in 128, of patches "
        "where there are.");
  fastinfer::cuda::bind_pure(m);
  m.def(
      "known_sparse_configs", [] { return list_of(fastinfer::cuda::known_sparse_configs()); },
      "Every kernel and tile for 2:4 weights that is built, as dicts.");
  m.def(
      "known_gather_configs", [] { return list_of(fastinfer::cuda::known_gather_configs()); },
      "The same for weights of which channels keep the same inputs.");
  m.def("set_sparse", &fastinfer::cuda::set_sparse, py::arg("mode"),
        "Whether int8_prepack packs for sparse tensor cores: auto, never or always.");
  m.def("known_configs", &known, "Every kernel and tile that is built, as dicts.");
  m.def("force_config", &fastinfer::cuda::force_config, py::arg("kernel"), py::arg("block_m") = 0,
        py::arg("block_n") = 0, py::arg("cluster") = 1,
        "Use a kernel and tile wherever it can run; '' gives the choice back.");
  m.def("choose_depthwise", &choose_strip, py::arg("images"), py::arg("channels"),
        py::arg("out_height"), py::arg("out_width"), py::arg("kernel"), py::arg("stride"),
        "How a depthwise convolution of a square kernel runs, as a dict; kernel 0: any kernel.");
  m.def("force_depthwise", &fastinfer::cuda::force_depthwise, py::arg("strip") = 0,
        py::arg("lanes") = 0, "Use other strips and lanes; zeros give the choice back.");
  m.attr("PACKED_VERSION") = fastinfer::kPackedVersion;
}
