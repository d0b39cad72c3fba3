"""What a user asks `convert` for, checked before any work."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch

from torch import nn

from fastinfer.types.quant import OBSERVERS

PRESETS = ("auto", "int8", "int8-dynamic", "int8-weight-only", "bf16", "fp32")


class UnsupportedError(ValueError):
    """A valid request that this release cannot serve."""


@dataclass(frozen=True)
class Config:
    """How to convert.

    precision: a preset name; "auto" takes int8 where it is faster and accurate enough.
    mode: "static", "dynamic" or "weight_only" for every int8 layer; None chooses a layer at a time.
    observer: how calibration finds ranges.
    ignore: layers to keep float: names, patterns ("head.*") or module types.
    allow_slower: keep int8 layers that are slower than float ("auto" only).
    min_sqnr_db: accuracy the output keeps on calibration data; None: 20 under auto, 10 otherwise.

    Raises:
        ValueError: a value out of its set, or a contradiction.
        UnsupportedError: int4 weights, which no kernel serves yet, or sparsity, which is `prune`'s.
    """

    precision: str = "auto"
    mode: str | None = None
    observer: str = "minmax"
    ignore: tuple[str | type[nn.Module], ...] = field(default=())
    allow_slower: bool = False
    per_channel: bool = True
    bias_correction: bool = True
    min_sqnr_db: float | None = None
    sparsity: float | None = None

    def __post_init__(self) -> None:
        if self.precision == "int4-weight-only":
            raise UnsupportedError(
                "Config: precision int4-weight-only has no kernel yet; use int8-weight-only"
            )
        if self.precision not in PRESETS:
            raise ValueError(f"Config: expected precision in {PRESETS}, got {self.precision!r}")
        if self.sparsity is not None:
            raise UnsupportedError(
                f"Config: sparsity: expected None, got {self.sparsity!r}: zeros are recognised "
                "without being asked for; fastinfer.prune makes them"
            )
        modes = (None, "static", "dynamic", "weight_only")
        if self.mode not in modes:
            raise ValueError(f"Config: expected mode in {modes}, got {self.mode!r}")
        if self.mode is not None and self.precision not in ("auto", "int8"):
            raise ValueError(
                f"Config: mode={self.mode!r} contradicts precision={self.precision!r}; "
                "give mode only with precision auto or int8"
            )
        if self.observer not in OBSERVERS:
            raise ValueError(f"Config: expected observer in {OBSERVERS}, got {self.observer!r}")
        if self.allow_slower and self.precision != "auto":
            raise ValueError(
                f"Config: allow_slower is for precision auto, got {self.precision!r}, which is "
                "never undone for speed"
            )
        if isinstance(self.ignore, str):
            raise ValueError(f"Config: expected ignore a sequence, got the string {self.ignore!r}")
        object.__setattr__(self, "ignore", tuple(self.ignore))
        for entry in self.ignore:
            if not isinstance(entry, str) and not (
                isinstance(entry, type) and issubclass(entry, nn.Module)
            ):
                raise ValueError(
                    f"Config: expected ignore of names, patterns or module types, got {entry!r}"
                )
        if self.min_sqnr_db is not None and math.isnan(self.min_sqnr_db):
            raise ValueError("Config: expected min_sqnr_db a number, got NaN")


def resolve_config(config: Config | str) -> Config:
    """Return the Config of a preset name, or the Config itself.

    Raises:
        TypeError: config is neither.
        ValueError: an unknown name.
    """
    if isinstance(config, Config):
        return config
    if isinstance(config, str):
        return Config(precision=config)
    raise TypeError(f"convert: expected config a preset name or a Config, got {type(config)}")


def named_ignores(config: Config, model: nn.Module) -> Config:
    """Return the config with module types in `ignore` replaced by the names they have in model.

    Raises:
        ValueError: an entry names nothing in the model.
    """
    modules = dict(model.named_modules())
    # A layer made of a bare parameter is named after it: attn.in_proj of attn.in_proj_weight.
    stems = {name.rpartition("weight")[0].rstrip("._") for name, _ in model.named_parameters()}
    known = {*modules, *stems} - {""}
    names: list[str | type[nn.Module]] = []
    for entry in config.ignore:
        if isinstance(entry, str):
            found = [entry] if not known or any(fnmatch(name, entry) for name in known) else []
        else:
            places = [name for name, module in modules.items() if isinstance(module, entry)]
            found = [p for name in places for p in ((name, f"{name}.*") if name else ("*",))]
        if not found:
            raise ValueError(
                f"Config: ignore: expected a name, pattern or type of a module of the model, got "
                f"{entry!r}, which is none of them"
            )
        names += found
    return replace(config, ignore=tuple(names))
