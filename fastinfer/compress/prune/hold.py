"""Zeros that stay zeros while a model is trained, with nothing left in the model afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

#: A weight with a smaller share of zeros was not pruned: a padding row, or zeros by chance.
LEAST_ZEROS = 0.01


class MaskHold:
    """Holds weights at zero where a mask is False, until `remove()` or the end of a `with`.

    Gradients are masked as they are accumulated, so clipping and momentum see those of the kept
    weights only, and weights are masked again after every step of any optimizer that has them:
    weight decay or momentum from before cannot move them. The model gets no parametrization and no
    key in its state_dict.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        self._parameters = dict(model.named_parameters())
        unknown = sorted(set(masks) - set(self._parameters))
        if unknown:
            raise ValueError(
                f"hold_masks: masks: expected names of parameters of the model, got {unknown[:3]}"
            )
        self._zeroed: dict[str, Tensor] = {}
        self._hooks: dict[str, Any] = {}
        self._step_hook = register_optimizer_step_post_hook(self._after_step)
        try:
            self.update(masks)
        except BaseException:
            self.remove()
            raise

    @property
    def masks(self) -> dict[str, Tensor]:
        """The bool mask of every held weight by its name, True where it may be other than zero."""
        return {name: ~zeroed for name, zeroed in self._zeroed.items()}

    def update(self, masks: Mapping[str, Tensor]) -> None:
        """Hold these masks from now on, in the place of earlier ones of the same weights.

        Args:
            masks: parameter name -> bool of the parameter's shape, True for what is kept.

        Raises:
            ValueError: a mask is not bool or not of its parameter's shape.
        """
        for name, mask in masks.items():
            wanted = self._parameters[name].shape
            if mask.dtype != torch.bool or mask.shape != wanted:
                raise ValueError(
                    f"hold_masks: masks[{name!r}]: expected bool {list(wanted)}, got "
                    f"{str(mask.dtype).removeprefix('torch.')} {list(mask.shape)}"
                )
        for name, mask in masks.items():
            parameter = self._parameters[name]
            self._zeroed[name] = ~mask.to(parameter.device)
            if name not in self._hooks and parameter.requires_grad:
                self._hooks[name] = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    lambda p, name=name: self._mask_gradient(name, p)
                )
        self.apply()

    @torch.no_grad()
    def apply(self) -> None:
        """Set held weights to zero now; optimizers' steps do it by themselves."""
        for name, zeroed in self._zeroed.items():
            parameter = self._parameters[name]
            # Not a product with the mask: that of an infinity would be NaN.
            parameter.masked_fill_(self._on(name, zeroed, parameter), 0)

    def remove(self) -> None:
        """Let go: weights may become other than zero again."""
        self._step_hook.remove()
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
        self._zeroed.clear()

    def __enter__(self) -> MaskHold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _on(self, name: str, zeroed: Tensor, parameter: Tensor) -> Tensor:
        """Return the mask on the parameter's device, which `.to()` may have changed."""
        if zeroed.device != parameter.device:
            zeroed = self._zeroed[name] = zeroed.to(parameter.device)
        return zeroed

    def _mask_gradient(self, name: str, parameter: Tensor) -> None:
        if parameter.grad is not None and name in self._zeroed:
            parameter.grad.masked_fill_(self._on(name, self._zeroed[name], parameter), 0)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        held = {id(self._parameters[name]) for name in self._zeroed}
        if any(id(p) in held for group in optimizer.param_groups for p in group["params"]):
            self.apply()


def zero_masks(model: nn.Module, least: float = LEAST_ZEROS) -> dict[str, Tensor]:
    """Return parameter name -> mask of what is not zero, of weights with a share of zeros.

    Args:
        model: its floating-point parameters of two dimensions or more are looked at; one that
            stands in several places is named once.
        least: the least share of zeros, 0..1; weights with fewer have no mask.
    """
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or not parameter.is_floating_point() or not parameter.numel():
            continue
        mask = parameter.detach() != 0
        zeros = parameter.numel() - int(mask.sum())
        if zeros and zeros >= least * parameter.numel():
            found[name] = mask
    return found


def hold_masks(
    model: nn.Module, masks: Mapping[str, Tensor] | None = None, *, least: float = LEAST_ZEROS
) -> MaskHold:
    """Return a hold on the model's zeros: they stay through any training, until it is removed.

        with fastinfer.hold_masks(model):
            train(model)                    # any loop, any optimizer

    Args:
        model: pruned; every weight with at least a share `least` of zeros is held where it is zero,
            also one that is zero altogether.
        masks: parameter name -> bool of its shape, True for what is kept, in the place of that.
        least: share of zeros, 0..1, below which a weight is left free.

    Raises:
        TypeError: model is no module.
        ValueError: a mask names no parameter or is not bool of its shape; least is not 0..1.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"hold_masks: model: expected an nn.Module, got {type(model).__name__}")
    if not 0 <= least <= 1:
        raise ValueError(f"hold_masks: least: expected a share of zeros 0..1, got {least}")
    return MaskHold(model, zero_masks(model, least) if masks is None else masks)
