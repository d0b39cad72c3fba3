"""torch's own layers that a stored model may hold, and how each is made again."""

from __future__ import annotations

from torch import nn

_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_CONV, "output_padding")
_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_INPLACE = ("inplace",)
_AVG_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")

#: Class -> attributes that are its constructor's arguments; "bias" is whether there is one.
TORCH_LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.Conv1d: (*_CONV, "padding_mode", "bias"),
    nn.Conv2d: (*_CONV, "padding_mode", "bias"),
    nn.Conv3d: (*_CONV, "padding_mode", "bias"),
    nn.ConvTranspose1d: (*_TRANSPOSED, "bias"),
    nn.ConvTranspose2d: (*_TRANSPOSED, "bias"),
    nn.ConvTranspose3d: (*_TRANSPOSED, "bias"),
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.BatchNorm3d: _NORM,
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    nn.Embedding: (
        "num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type",
        "scale_grad_by_freq", "sparse",
    ),
    nn.ReLU: _INPLACE,
    nn.ReLU6: _INPLACE,
    nn.SiLU: _INPLACE,
    nn.Mish: _INPLACE,
    nn.Hardswish: _INPLACE,
    nn.Hardsigmoid: _INPLACE,
    nn.GELU: ("approximate",),
    nn.ELU: ("alpha", "inplace"),
    nn.LeakyReLU: ("negative_slope", "inplace"),
    nn.Softplus: ("beta", "threshold"),
    nn.Sigmoid: (),
    nn.Tanh: (),
    nn.Softmax: ("dim",),
    nn.LogSoftmax: ("dim",),
    nn.Identity: (),
    nn.Dropout: ("p", "inplace"),
    nn.Dropout1d: ("p", "inplace"),
    nn.Dropout2d: ("p", "inplace"),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.AvgPool1d: _AVG_POOL,
    nn.AvgPool2d: (*_AVG_POOL, "divisor_override"),
    nn.MaxPool1d: _MAX_POOL,
    nn.MaxPool2d: _MAX_POOL,
    nn.AdaptiveAvgPool1d: ("output_size",),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.AdaptiveMaxPool2d: ("output_size", "return_indices"),
    nn.ZeroPad2d: ("padding",),
    nn.PixelShuffle: ("upscale_factor",),
    nn.ChannelShuffle: ("groups",),
    nn.Upsample: ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"),
}  # fmt: skip
