"""What every loss of the family has: multipliers, one way to reduce, one way to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import Any

import torch
from tensordict import LazyStackedTensorDict, NestedKey, TensorDict, TensorDictBase
from torch import Tensor
from torchrl.objectives.common import LossModule

from mpo_torchrl.dual.multiplier import LagrangeMultiplier
from mpo_torchrl.loss import checks
from mpo_torchrl.loss.networks import next_key, require_shapes, reset_network

Reduce = Callable[..., Tensor]


class LagrangianLoss(LossModule):
    """A loss whose Lagrange multipliers are trained beside its networks.

    The multipliers are submodules; their names are those of their diagnostics. Subclasses set
    ``reduction``, ``scalar_output_mode`` and ``use_prioritized_weights``, and name the networks
    that they converted in ``network_names``.
    """

    network_names: tuple[str, ...] = ()

    reduction: str
    scalar_output_mode: str | None
    use_prioritized_weights: str | bool

    def __init__(self) -> None:
        self._in_keys: list[NestedKey] | None = None
        self._out_keys: list[NestedKey] | None = None
        super().__init__()
        self.register_load_state_dict_pre_hook(_require_own_shapes)

    def __getstate__(self) -> dict[str, Any]:
        # Caches hold the parameters of this very loss: a copy makes its own.
        return {key: value for key, value in self.__dict__.items() if key != "_cache"}

    def __getattr__(self, name: str) -> Any:
        # Where a property raised, torch would say that there is none.
        found = getattr(type(self), name, None)
        if isinstance(found, property) and found.fget is not None:
            return found.fget(self)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        # loss.temperature = 0.5 sets the multiplier, as loss.epsilon = 0.05 sets the bound.
        if isinstance(value, (Real, Tensor)) and "_modules" in self.__dict__:
            module = self._modules.get(name)
            if isinstance(module, LagrangeMultiplier):
                module.assign(value if isinstance(value, Tensor) else float(value))
                return
            if module is not None:
                raise AttributeError(
                    f"{name} of this loss is a {type(module).__name__}, not a multiplier that a "
                    "number could be given to."
                )
        super().__setattr__(name, value)

    def multipliers(self) -> dict[str, LagrangeMultiplier]:
        """The trained multipliers by name."""
        modules = self._modules.items()
        return {name: m for name, m in modules if isinstance(m, LagrangeMultiplier)}

    def dual_parameters(self) -> list[Tensor]:
        """The temperatures and KL multipliers, which want a learning rate near 1e-2."""
        return [multiplier.raw for multiplier in self.multipliers().values()]

    def network_parameters(self) -> list[Tensor]:
        """The trained parameters of the networks."""
        dual = {id(parameter) for parameter in self.dual_parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in dual]

    def reset_parameters_recursive(self) -> None:
        """Draws the networks anew, copies them to their targets, resets the multipliers."""
        for name in self.network_names:
            reset_network(getattr(self, name), getattr(self, f"{name}_params"))
        for name in self.network_names:  # only now: a network may share some of another's
            target = self._modules.get(f"target_{name}_params")
            if target is not None:
                target.data.update_(getattr(self, f"{name}_params").data)
        for multiplier in self.multipliers().values():
            multiplier.reset_parameters()

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Takes over a state; one of other shapes is refused, not broadcast as TensorDict does.

        Returns:
            NamedTuple: ``missing_keys`` and ``unexpected_keys``, as of any module.

        Raises:
            RuntimeError: if a shape differs, or a key and ``strict`` is set.
        """
        found = self.state_dict()
        _require_own_shapes(self, state_dict)
        # Networks are TensorDicts, which take what there is of a state and say nothing of the rest.
        missing = [key for key in found if key not in state_dict]
        unexpected = [key for key in state_dict if key not in found]
        if (missing or unexpected) and (args[0] if args else kwargs.get("strict", True)):
            raise RuntimeError(
                f"the state is not that of this loss: {len(missing)} entries are missing "
                f"{missing[:3]}, {len(unexpected)} are of no use {unexpected[:3]}; it was saved "
                "with other networks, parts or settings. strict=False takes over what fits."
            )
        if unexpected:
            state_dict = {key: value for key, value in state_dict.items() if key in found}
        result = super().load_state_dict(state_dict, *args, **kwargs)
        return type(result)(missing, unexpected)

    def _set_output(
        self, reduction: str, scalar_output_mode: str | None, use_prioritized_weights: str | bool
    ) -> None:
        checks.require_choice("reduction", reduction, ("none", "mean", "sum"))
        modes = (None, "exclude", "non_tensor")
        checks.require_choice("scalar_output_mode", scalar_output_mode, modes)
        weighted = ("auto", True, False)
        checks.require_choice("use_prioritized_weights", use_prioritized_weights, weighted)
        self.reduction = reduction
        self.scalar_output_mode = scalar_output_mode
        self.use_prioritized_weights = use_prioritized_weights

    @property
    def reports_scalars(self) -> bool:
        """Whether the output has diagnostics; with ``reduction="none"`` only if asked for."""
        return self.reduction != "none" or self.scalar_output_mode == "non_tensor"

    @property
    def out_keys(self) -> list[NestedKey]:
        """The losses and, unless ``reduction="none"`` leaves them out, the diagnostics."""
        # Made anew each time: they follow loss.reduction.
        return self._make_out_keys() if self._out_keys is None else self._out_keys

    @out_keys.setter
    def out_keys(self, values: list[NestedKey]) -> None:
        self._out_keys = values

    @property
    def in_keys(self) -> list[NestedKey]:
        """What the loss reads from a batch."""
        if self._in_keys is None:
            self._in_keys = self._make_in_keys()
        return self._in_keys

    @in_keys.setter
    def in_keys(self, values: list[NestedKey]) -> None:
        self._in_keys = values

    def _make_in_keys(self) -> list[NestedKey]:
        raise NotImplementedError

    def _make_out_keys(self) -> list[NestedKey]:
        raise NotImplementedError

    def _priority_weight(self, tensordict: TensorDictBase) -> Tensor | None:
        """Importance weights; LossModule's own way to them does not look into nested keys."""
        if not self.use_prioritized_weights:
            return None
        return tensordict.get(self.tensor_keys.priority_weight, None)

    def _mask(self, tensordict: TensorDictBase) -> Tensor | None:
        """``[*B]``, the states that count; ``None`` if all do."""
        combined: Tensor | None = None
        for key in self._loss_mask_keys():
            mask = tensordict.get(key, None)
            if mask is not None:
                while mask.ndim and mask.shape[-1] == 1:
                    mask = mask.squeeze(-1)
                combined = mask if combined is None else combined & mask
        return combined

    def _without_masked(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The batch, with its first valid position wherever it is masked; itself without a mask.

        Masked positions may hold anything, NaN included. To leave their losses out is not
        enough: in the backward pass zero times NaN is NaN. Nor would zeros do, which need not be
        a state: as a mask of actions they forbid every one. What is put there is of another
        episode, so that of the step before ends with it: nothing that looks along time goes on.
        """
        mask = self._mask(tensordict)
        if mask is None:
            return tensordict
        checks.require_mask(mask, self.in_keys[0], tensordict.get(self.in_keys[0], None))
        if isinstance(tensordict, LazyStackedTensorDict):  # which is applied to piece by piece
            tensordict = tensordict.contiguous()
        valid = tensordict.apply(partial(_first_unless, mask), filter_empty=False)
        kept = [key for key in self._loss_mask_keys() if tensordict.get(key, None) is not None]
        valid.update(tensordict.select(*kept))
        done, terminated = next_key(self.tensor_keys.done), next_key(self.tensor_keys.terminated)
        ends = valid.get(done, None)
        if ends is not None and mask.ndim:
            if valid.get(terminated, None) is None:  # which then is taken to be done
                valid.set(terminated, ends)
            valid.set(done, ends | _expanded(_last_of(mask, _time_dim(tensordict, mask)), ends))
        return valid

    def _reducer(self, tensordict: TensorDictBase) -> Reduce:
        """How to reduce ``[*B]`` over this batch, its masks looked up once."""
        masked = self._mask(tensordict) is not None

        def reduce(
            loss: Tensor, reduction: str | None = None, weights: Tensor | None = None
        ) -> Tensor:
            reduction = self.reduction if reduction is None else reduction
            if weights is not None and reduction == "mean":
                loss, weights = self._unless_weightless(loss, weights, tensordict)
            if masked or weights is not None:
                return self._reduce_loss(loss, tensordict, reduction=reduction, weights=weights)
            if reduction == "mean":
                return loss.mean()
            return loss.sum() if reduction == "sum" else loss

        return reduce

    def _unless_weightless(
        self, loss: Tensor, weights: Tensor, tensordict: TensorDictBase
    ) -> tuple[Tensor, Tensor]:
        """Losses and weights ``[*B]``; losses of zero where no weight is left to divide by."""
        counted, mask = weights, self._mask(tensordict)
        if mask is not None:
            counted = torch.where(self._expand_loss_mask(mask, weights), weights, 0.0)
        weighs = counted.sum() != 0
        return torch.where(weighs, loss, 0.0), torch.where(weighs, weights, 1.0)

    def _output(
        self, losses: dict[str, Tensor], readings: dict[str, Tensor], reduce: Reduce
    ) -> TensorDictBase:
        """The losses and, for every reading of ``out_keys``, its mean over the states."""
        if self.reports_scalars:
            without_batch = {"temperature", *self.multipliers()}
            readings = {
                key: (
                    readings[key].mean() if key in without_batch else reduce(readings[key], "mean")
                )
                for key in self.out_keys
                if key in readings
            }
        if self.reduction != "none":
            return TensorDict({**losses, **(readings if self.reports_scalars else {})})
        output = TensorDict(losses, next(iter(losses.values())).shape)
        for key, reading in readings.items() if self.reports_scalars else ():
            output.set_non_tensor(key, reading)
        return output

    def require_first_finite(self, tensordict: TensorDictBase) -> None:
        """Raises if the first batch holds numbers that are not finite; once, since it waits."""
        if not self._seen_finite_batch and not torch.compiler.is_compiling():
            checks.require_finite(tensordict, [*self.in_keys, *self._optional_keys()])
            self._seen_finite_batch = True

    def _require_sized_layers(self) -> None:
        """Raises ``ValueError`` if at the first batch a network's layers have no shape yet."""
        if not self._seen_finite_batch and not torch.compiler.is_compiling():
            for name in self.network_names:
                require_shapes(name, getattr(self, f"{name}_params").values(True, True))

    def _optional_keys(self) -> list[NestedKey]:
        """What is read of a batch, beside :attr:`in_keys`, if it is there."""
        return []

    _seen_finite_batch = False


def _require_own_shapes(
    loss: LagrangianLoss, state_dict: Mapping[str, Any], prefix: str = "", *_: Any
) -> None:
    """Raises ``RuntimeError`` if a state has other shapes: that of a greater module, too."""
    for key, own in loss.state_dict().items():
        given = state_dict.get(prefix + key)
        if isinstance(own, Tensor) and isinstance(given, Tensor) and own.shape != given.shape:
            raise RuntimeError(
                f"size mismatch for {prefix}{key}: the state holds {list(given.shape)}, the loss "
                f"{list(own.shape)}; it was saved with other networks or numbers of them."
            )


def _first_unless(mask: Tensor, entry: Tensor) -> Tensor:
    """The entry with its first row for which the mask holds in the place of every other one."""
    rows = entry.reshape(mask.numel(), *entry.shape[mask.ndim :])
    first = rows.index_select(0, mask.reshape(-1).long().argmax(0, keepdim=True))
    first = torch.where(mask.any(), first, torch.zeros_like(first)).squeeze(0)
    return torch.where(_expanded(mask, entry), entry, first)


def _last_of(mask: Tensor, time: int) -> Tensor:
    """The steps of which the mask holds, and not of the one after."""
    following = torch.cat([mask, torch.ones_like(mask)], time).narrow(time, 1, mask.shape[time])
    return mask & ~following


def _time_dim(tensordict: TensorDictBase, mask: Tensor) -> int:
    """The dimension called time, as TorchRL's value estimators find it, or else the last one."""
    names = tensordict.names[: mask.ndim]
    return names.index("time") if "time" in names else min(tensordict.batch_dims, mask.ndim) - 1


def _expanded(mask: Tensor, entry: Tensor) -> Tensor:
    """A mask ``[*B]`` with the dimensions of an entry ``[*B, ...]``."""
    return mask.reshape(mask.shape + (1,) * (entry.ndim - mask.ndim))
