"""Clipped gradients of any torch module whose rows do not mix, by Opacus.

Guarantees: as `gradients`; a module that mixes rows, or draws randomness of its own, is refused.

Leaves to others: which modules there are (`networks`), sampling, noise and steps (`dp_sgd`).
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training.gradients import check_shapes

__all__ = ["ModuleClipping", "ModuleGradient"]

_ROWS_AT_ONCE = 1024  # bounds the memory of per-row gradients, changes no result


class ModuleClipping(StrEnum):
    """How a module's gradients are clipped row by row; the sums are the same."""

    GHOST = "ghost"
    """Norms from activations and their gradients, sums by a second pass (Li et al. 2022, Bu et al.
    2022): no row's gradient is built where the layer allows, which most do."""
    PER_ROW = "per-row"
    """Every row's whole gradient in memory: for modules that share parameters between layers."""


class ModuleGradient:
    """Any torch module whose rows do not mix, differentiated row by row by Opacus.

    Args:
        module_factory: makes the module (``torch.nn.Module``); the weights it
            starts with are replaced, frozen ones kept.
        loss: takes the module's outputs and the labels of n rows (torch tensors, float64) and
            returns n losses, one a row. A loss that averages over rows would let each row change
            the others' gradients, so it is refused.
        clipping: how; for most modules ghost clipping is faster, often by far.

    Raises:
        InvalidParameterError: if Opacus refuses the module (batch normalisation mixes rows), if it
            draws randomness of its own (dropout), or if it has nothing to train.
    """

    def __init__(
        self,
        module_factory: Callable[[], Any],
        loss: Callable[[Any, Any], Any],
        *,
        clipping: ModuleClipping = ModuleClipping.GHOST,
    ) -> None:
        import torch
        from opacus import GradSampleModule
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.validators import ModuleValidator

        torch.set_num_threads(1)  # two threads are slower on these small matrices
        module = module_factory().double().train()
        mistakes = ModuleValidator.validate(module, strict=False)
        if mistakes:
            raise InvalidParameterError(
                f"{type(module).__name__} cannot be trained privately: "
                f"{'; '.join(str(mistake) for mistake in mistakes)}"
            )
        nn = torch.nn
        random_parts = (
            *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
            *(nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU),
        )
        if any(isinstance(part, random_parts) for part in module.modules()):
            raise InvalidParameterError(
                f"{type(module).__name__} draws randomness of its own, which no secret stream can "
                "repeat: remove the dropout, the noise regularises enough"
            )
        wrapper = (
            GradSampleModuleFastGradientClipping
            if clipping is ModuleClipping.GHOST
            else GradSampleModule
        )
        try:
            self._module = wrapper(module, loss_reduction="sum")
        except NotImplementedError as error:
            raise InvalidParameterError(
                f"{type(module).__name__} cannot be trained privately: {error}"
            ) from error
        self._trained = [p for p in self._module.parameters() if p.requires_grad]
        if not self._trained:
            raise InvalidParameterError(f"{type(module).__name__} has no parameter to train")
        self._loss = loss
        self._clipping = clipping

    @property
    def parameter_count(self) -> int:
        """All trainable parameters, flattened in the module's order."""
        return sum(parameter.numel() for parameter in self._trained)

    def clipped_gradient_sum(
        self,
        parameters: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        clipping_norm: float,
    ) -> NDArray[np.float64]:
        """Sum the clipped gradients (see `GradientEngine`)."""
        import torch
        from torch.nn.utils import vector_to_parameters

        check_shapes(self, parameters, features, labels)
        vector_to_parameters(torch.from_numpy(parameters.copy()), self._trained)
        part_of = self._ghost_part if self._clipping is ModuleClipping.GHOST else self._per_row_part
        total = np.zeros(self.parameter_count)
        for start in range(0, len(features), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            total += part_of(features[rows], labels[rows], clipping_norm)
        return total

    def _per_row_part(
        self, features: NDArray[np.float64], labels: NDArray[np.float64], clipping_norm: float
    ) -> NDArray[np.float64]:
        """Build every row's gradient, clip and add them."""
        self._losses(features, labels).sum().backward()
        gradients = np.concatenate(
            [
                np.zeros((len(features), parameter.numel()))
                if parameter.grad_sample is None
                else parameter.grad_sample.reshape(len(features), -1).numpy()
                for parameter in self._trained
            ],
            axis=1,
        )
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(gradients, axis=1)
        finite = np.isfinite(norms)
        weights = clipping_norm / np.maximum(norms[finite], clipping_norm)
        clipped: NDArray[np.float64] = weights @ gradients[finite]
        return clipped

    def _ghost_part(
        self, features: NDArray[np.float64], labels: NDArray[np.float64], clipping_norm: float
    ) -> NDArray[np.float64]:
        """Find every row's norm in one pass, and the sum of weighted losses' gradients in another.

        A row whose gradient is not finite is left out of the second pass, in which 0 times it
        would not be 0.
        """
        import torch

        for parameter in self._trained:
            parameter._norm_sample = None  # noqa: SLF001 - where Opacus leaves the norms
        try:
            losses = self._losses(features, labels)
        except NotImplementedError as error:
            raise InvalidParameterError(
                f"ghost clipping cannot do this module ({error}): use ModuleClipping.PER_ROW"
            ) from error
        losses.sum().backward(retain_graph=True)
        found = [parameter._norm_sample for parameter in self._trained]  # noqa: SLF001
        squares = [norms.detach().reshape(-1).square() for norms in found if norms is not None]
        norms = torch.stack(squares).sum(dim=0).sqrt() if squares else torch.zeros(len(features))
        finite = torch.isfinite(norms)
        weights = clipping_norm / norms[finite].clamp(min=clipping_norm)
        self._module.disable_hooks()
        try:
            if not bool(finite.all()):
                losses = self._losses(features[finite.numpy()], labels[finite.numpy()])
            self._module.zero_grad(set_to_none=True)
            (weights * losses).sum().backward()
        finally:
            self._module.enable_hooks()
        return np.concatenate(
            [
                np.zeros(parameter.numel())
                if parameter.grad is None
                else parameter.grad.reshape(-1).numpy()
                for parameter in self._trained
            ]
        )

    def _losses(self, features: NDArray[np.float64], labels: NDArray[np.float64]) -> Any:
        """Return every row's loss, a tensor of shape (n,) that can be differentiated."""
        import torch

        self._module.zero_grad(set_to_none=True)
        # Opacus' hooks on the first layer want an input that is differentiated too.
        inputs = torch.from_numpy(features).requires_grad_()
        try:
            losses = self._loss(self._module(inputs), torch.from_numpy(labels))
        except NotImplementedError:
            raise
        except RuntimeError as error:
            raise InvalidParameterError(
                f"expected rows that the module and its loss take, got {features.shape[1]} "
                "features a row"
            ) from error
        if losses.shape != (len(features),):
            raise InvalidParameterError(
                f"the loss must return one number a row, shape ({len(features)},), got "
                f"{tuple(losses.shape)}: use reduction='none' and one output a row"
            )
        return losses
