"""Callbacks for PyTorch Lightning: pruning by a schedule, and distillation.

Both make a callback for the package that is in use, `lightning` or `pytorch_lightning`: each has a
class Callback of its own. To train a model whose zeros are there already no callback is needed:

    with fastinfer.hold_masks(model):
        trainer.fit(model, loader)
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastinfer.compress.distill.features import FeatureLoss, Features, feature_names
from fastinfer.compress.distill.losses import LossFunction, OutputLoss
from fastinfer.compress.prune.gradual import GradualPruner, Ignore
from fastinfer.compress.prune.schedule import CubicSchedule
from fastinfer.types.sparsity import Pattern

PACKAGES = ("lightning", "pytorch_lightning")


def _callback_class(what: str, package: str | None) -> type[Any]:
    """Return the class Callback of the package that is asked for, imported or installed.

    Raises:
        ValueError: no such package.
        ImportError: neither is installed.
    """
    if package is not None and package not in PACKAGES:
        raise ValueError(f"{what}: package: expected one of {list(PACKAGES)}, got {package!r}")
    wanted = PACKAGES if package is None else (package,)
    loaded = [name for name in wanted if _module(name) in sys.modules]
    installed = [name for name in wanted if importlib.util.find_spec(name) is not None]
    found = [*loaded, *installed]
    if not found:
        raise ImportError(
            f"{what}: needs PyTorch Lightning, and {' or '.join(wanted)} is not installed: "
            "pip install lightning"
        )
    callback: type[Any] = importlib.import_module(_module(found[0])).Callback
    return callback


def _module(package: str) -> str:
    return "lightning.pytorch" if package == "lightning" else package


def pruning_callback(
    pattern: str | Pattern,
    sparsity: float | None,
    schedule: CubicSchedule,
    *,
    module: str = "",
    ignore: Sequence[Ignore] = (),
    dense_ends: bool = True,
    scope: Literal["global", "layer"] = "global",
    package: str | None = None,
) -> Any:
    """Return a callback that prunes a LightningModule while it is trained.

    Masks are held from their step to the end of `fit`, and are in Lightning's checkpoints.

    Args:
        pattern, sparsity, schedule, ignore, dense_ends, scope: as of `GradualPruner`. Steps are
            trainer.global_step: of the optimizer, not of batches.
        module: name of the submodule to prune, "" for all.
        package: "lightning" or "pytorch_lightning"; by default the one that is imported.

    Raises:
        ImportError: neither is installed.
    """
    base = _callback_class("pruning_callback", package)

    class PruningCallback(base):  # type: ignore[misc,valid-type]
        """Has the pruner as `pruner`; it holds nothing any more when `fit` is over."""

        pruner: GradualPruner | None = None
        #: Of a checkpoint until `fit` begins, and of the pruner after its end.
        _state: dict[str, Any] | None = None

        def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
            self.pruner = GradualPruner(
                pl_module.get_submodule(module), pattern, sparsity, schedule, ignore=ignore,
                dense_ends=dense_ends, scope=scope,
            )  # fmt: skip
            state, self._state = self._state, None
            if state is not None:
                self.pruner.load_state_dict(state)

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            assert self.pruner is not None
            while self.pruner.steps < trainer.global_step:
                self.pruner.step()

        def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
            if self.pruner is not None:
                self._state = self.pruner.state_dict()
                self.pruner.remove()

        def on_exception(self, trainer: Any, pl_module: nn.Module, exception: Any) -> None:
            self.on_train_end(trainer, pl_module)

        def state_dict(self) -> dict[str, Any]:
            if self._state is not None or self.pruner is None:
                return dict(self._state or {})
            return self.pruner.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self._state = dict(state_dict) or None

    return PruningCallback()


def distillation_callback(
    teacher: nn.Module,
    *,
    student: str = "",
    weight: float = 1.0,
    loss: str | LossFunction = "auto",
    temperature: float = 2.0,
    features: Features | None = None,
    feature_weight: float = 1.0,
    package: str | None = None,
) -> Any:
    """Return a callback that adds the distance to a teacher's answers to the loss of each batch.

    The teacher is called with what the student was called with last in `training_step`; it is kept
    out of the LightningModule and of its checkpoints. "distill_loss" is logged.

    Args:
        teacher: runs in eval mode without gradients.
        student: name of the submodule that is the student, as "model"; "" where training_step
            calls the LightningModule itself.
        weight: of all that is added.
        loss, temperature, features, feature_weight: as of `fastinfer.distill`.
        package: "lightning" or "pytorch_lightning"; by default the one that is imported.

    Raises:
        ImportError: neither is installed.
        ValueError: a wrong loss, temperature or weight.
    """
    what = "distillation_callback"
    base = _callback_class(what, package)
    if not isinstance(teacher, nn.Module):
        raise TypeError(f"{what}: teacher: expected an nn.Module, got {type(teacher).__name__}")
    for name, value in (("weight", weight), ("feature_weight", feature_weight)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{what}: {name}: expected a number >= 0, got {value}")
    outputs = OutputLoss(what, loss, temperature)

    class DistillationCallback(base):  # type: ignore[misc,valid-type]
        """Says in `taken` which loss each output got."""

        taken = outputs.taken
        _call: tuple[Any, Any, Any] | None = None
        _hook: Any = None
        _features: FeatureLoss | None = None

        def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
            if str(trainer.precision).startswith("16"):
                raise ValueError(
                    f"{what}: precision: expected 32 or bf16, got {trainer.precision}, whose loss "
                    "is scaled before it comes here"
                )
            model = pl_module.get_submodule(student)
            teacher.to(next(model.parameters()).device).eval()
            self._hook = model.register_forward_hook(self._keep, with_kwargs=True)
            if features is not None:
                pairs = feature_names(what, model, teacher, features)
                self._features = FeatureLoss(what, model, teacher, pairs, features == "auto")

        def _keep(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if module.training:
                self._call = (args, kwargs, output)

        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
            if self._call is None:
                raise ValueError(
                    f"{what}: student: expected training_step to call {student or 'the module'!r}, "
                    "which it did not; name the submodule that it calls"
                )
            (args, kwargs, output), self._call = self._call, None
            with torch.no_grad():
                wanted = teacher(*args, **kwargs)
            added = outputs(output, wanted)
            self.taken = outputs.taken
            if self._features is not None:
                added = added + feature_weight * self._features()
            pl_module.log("distill_loss", added.detach())
            # In place, as Lightning runs backward on this very tensor: the quotient of the loss
            # and the batches that accumulate, which no other operation has seen.
            loss.add_(weight * added / trainer.accumulate_grad_batches)

        def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
            if self._hook is not None:
                self._hook.remove()
            if self._features is not None:
                self._features.remove()
            self._call = self._hook = self._features = None

        def on_exception(self, trainer: Any, pl_module: nn.Module, exception: Any) -> None:
            self.on_train_end(trainer, pl_module)

    return DistillationCallback()
