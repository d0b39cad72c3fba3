// What ops between layers check of their arguments, the same on every device.
#pragma once

#include "tensor_check.h"
#include "upsampled_size.h"

namespace fastinfer {

// The map from one uint8 tensor to another.
inline void check_map(const char* op, int64_t x_zero_point, int64_t out_zero_point, int64_t qmin,
                      int64_t qmax) {
  check_zero_point(op, "x_zero_point", x_zero_point);
  check_zero_point(op, "out_zero_point", out_zero_point);
  STD_TORCH_CHECK(qmin >= 0 && qmin <= qmax && qmax <= 255, op,
                  ": expected 0 <= qmin <= qmax <= 255, got ", qmin, ", ", qmax);
}

// Whether y, [N, C, 1, 1], is repeated over x's pixels; else it has x's shape.
inline bool check_repeats(const char* op, const Tensor& x, const Tensor& y) {
  check_dtype(op, "x", x, ScalarType::Byte);
  check_dtype(op, "y", y, ScalarType::Byte);
  const std::vector<int64_t> shape = sizes_of(x), y_shape = sizes_of(y);
  const bool repeats = shape != y_shape;
  STD_TORCH_CHECK(!repeats || (shape.size() == 4 &&
                               y_shape == std::vector<int64_t>{shape[0], shape[1], 1, 1}),
                  op, ": expected y with x's shape ", shape_text(x),
                  " or [N, C, 1, 1] for a 4-D x, got ", shape_text(y));
  return repeats;
}

// Tensors joined along a dimension: the result's shape as far as they are added, rows in memory, and
// the elements behind the joined dimension in one.
struct CatLayout {
  std::vector<int64_t> shape;
  size_t dim;
  int64_t rows, behind;
};

inline CatLayout begin_cat(const char* op, const std::vector<Tensor>& xs, int64_t dim,
                           size_t multipliers, size_t zero_points, bool nhwc) {
  STD_TORCH_CHECK(!xs.empty() && multipliers == xs.size() && zero_points == xs.size(), op,
                  ": expected at least one tensor, and a multiplier and a zero point for ",
                  "each, got ", xs.size(), ", ", multipliers, " and ", zero_points);
  const int64_t dims = xs[0].dim();
  STD_TORCH_CHECK(dim >= 0 && dim < dims, op, ": expected dim in 0..", dims - 1, ", got ", dim);
  CatLayout layout{sizes_of(xs[0]), static_cast<size_t>(dim), 1, 1};
  // Memory order, outermost first: what lies behind the joined dimension makes a row.
  const std::vector<size_t> nhwc_order = {0, 2, 3, 1};
  bool is_behind = false;
  for (size_t i = 0; i < layout.shape.size(); i++) {
    const size_t at = nhwc ? nhwc_order[i] : i;
    if (at == layout.dim) {
      is_behind = true;
    } else {
      (is_behind ? layout.behind : layout.rows) *= layout.shape[at];
    }
  }
  layout.shape[layout.dim] = 0;
  return layout;
}

// Adds a part to the shape and returns the elements that it has of a row.
inline int64_t add_part(const char* op, CatLayout& layout, const Tensor& first, const Tensor& x) {
  check_dtype(op, "xs", x, ScalarType::Byte);
  std::vector<int64_t> part = sizes_of(x);
  const bool is_like = part.size() == layout.shape.size();
  const int64_t size = is_like ? part[layout.dim] : 0;
  if (is_like) part[layout.dim] = layout.shape[layout.dim];
  STD_TORCH_CHECK(part == layout.shape, op, ": expected xs equal but in dim ", layout.dim,
                  ", got ", shape_text(first), " and ", shape_text(x));
  layout.shape[layout.dim] += size;
  return size * layout.behind;
}

// (height, width), or one number for both.
using Numbers = std::vector<int64_t>;

inline int64_t height_of(const Numbers& pair) { return pair.front(); }
inline int64_t width_of(const Numbers& pair) { return pair.back(); }

// A pool's window: a sum of so many bytes fits int32.
constexpr int64_t kMaxWindow = int64_t{1} << 23;

inline void check_image(const char* op, const Tensor& x) {
  check_dtype(op, "x", x, ScalarType::Byte);
  STD_TORCH_CHECK(x.dim() == 4 && x.sizes()[2] > 0 && x.sizes()[3] > 0, op,
                  ": expected x [N, C, H, W] with pixels, got ", shape_text(x));
}

inline void check_pair(const char* op, const char* argument, const Numbers& pair, int64_t least) {
  STD_TORCH_CHECK(pair.size() == 1 || pair.size() == 2, op, ": expected ", argument,
                  " of one or two numbers, got ", pair.size());
  STD_TORCH_CHECK(height_of(pair) >= least && width_of(pair) >= least, op, ": expected ",
                  argument, " >= ", least, ", got [", height_of(pair), ", ", width_of(pair), "]");
}

inline void check_pool(const char* op, const Tensor& x, const Numbers& kernel,
                       const Numbers& stride, const Numbers& padding, const Numbers& dilation) {
  check_image(op, x);
  check_pair(op, "kernel_size", kernel, 1);
  check_pair(op, "stride", stride, 1);
  check_pair(op, "padding", padding, 0);
  check_pair(op, "dilation", dilation, 1);
  STD_TORCH_CHECK(2 * height_of(padding) <= height_of(kernel) &&
                      2 * width_of(padding) <= width_of(kernel),
                  op, ": expected padding of at most half the kernel [", height_of(kernel), ", ",
                  width_of(kernel), "], got [", height_of(padding), ", ", width_of(padding), "]");
}

inline void check_averaged(const char* op, const Numbers& kernel) {
  STD_TORCH_CHECK(height_of(kernel) * width_of(kernel) <= kMaxWindow, op,
                  ": expected a kernel of at most ", kMaxWindow, " pixels");
}

inline void check_adaptive(const char* op, const Tensor& x, const Numbers& output_size) {
  check_image(op, x);
  check_pair(op, "output_size", output_size, 0);
  STD_TORCH_CHECK(x.sizes()[2] * x.sizes()[3] <= kMaxWindow, op, ": expected x of at most ",
                  kMaxWindow, " pixels, got ", shape_text(x));
}

struct ImageSize {
  int64_t height, width;
};

// What an image [N, C, H, W] is resized to: like's size, a size, or factors of its own.
inline ImageSize check_resized(const char* op, const Tensor& x, const std::optional<Tensor>& like,
                               const std::vector<int64_t>& size,
                               const std::vector<double>& factors, ScalarType dtype) {
  check_dtype(op, "x", x, dtype);
  STD_TORCH_CHECK(x.dim() == 4, op, ": expected x [N, C, H, W], got ", shape_text(x));
  const int given = (like.has_value() ? 1 : 0) + (size.empty() ? 0 : 1) + (factors.empty() ? 0 : 1);
  STD_TORCH_CHECK(given == 1 && (size.empty() || size.size() == 2) &&
                      (factors.empty() || factors.size() == 2),
                  op, ": expected one of like, output_size [H, W] and scale_factors [H, W], got ",
                  like.has_value() ? "a" : "no", " like, ", size.size(), " and ", factors.size(),
                  " numbers");
  STD_TORCH_CHECK(!like.has_value() || like->dim() == 4, op,
                  ": expected like [N, C, H, W], got ", like ? shape_text(*like) : "");
  const int64_t height = x.sizes()[2], width = x.sizes()[3];
  const ImageSize to = like.has_value() ? ImageSize{like->sizes()[2], like->sizes()[3]}
                       : !size.empty()  ? ImageSize{size[0], size[1]}
                                        : ImageSize{upsampled_size(height, factors[0]),
                                                    upsampled_size(width, factors[1])};
  STD_TORCH_CHECK(height > 0 && width > 0 && to.height > 0 && to.width > 0, op,
                  ": expected sizes >= 1, got ", shape_text(x), " to [", to.height, ", ",
                  to.width, "]");
  return to;
}

// Whether the rows along dim are an image's channels; else they are the last dimension.
inline bool check_rows(const char* op, const Tensor& x, int64_t dim) {
  check_dtype(op, "x", x, ScalarType::Float);
  const bool is_image = x.dim() == 4 && dim == 1;
  STD_TORCH_CHECK(x.dim() > 0 && (dim == x.dim() - 1 || is_image), op,
                  ": expected dim to be the last or an image's channels, got dim ", dim, " of ",
                  shape_text(x));
  return is_image;
}

}  // namespace fastinfer
