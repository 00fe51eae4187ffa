"""One network, several sets of parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torch import Tensor
from torchrl.objectives.utils import _vmap_func

from mpo_torchrl.errors import MissingEntryError, listed
from mpo_torchrl.memory import Memory, split
from mpo_torchrl.stateless import ParameterSets, StatelessNetwork


class Ensemble:
    """Evaluates a network under each of several sets of parameters.

    The sets are looped over: on a CPU that takes two thirds of the time of
    :func:`torch.vmap`, since batched products of small matrices are slow there.

    A recurrent network is evaluated in two steps: :meth:`recall` runs its torso once over a
    sequence, and a call evaluates what follows the torso, for as many actions as there are.

    Args:
        network (TensorDictModuleBase): the network; its own parameters are not used.
    """

    def __init__(self, network: TensorDictModuleBase) -> None:
        self.network = network
        torso, parts = split(network)
        self.memory = Memory([part.module for part in torso], stored=False) if torso else None
        head = parts[0].module if len(parts) == 1 else TensorDictSequential(*[m for m, _ in parts])
        self._head = head
        self._head_keys: list[NestedKey] = list(head.in_keys)
        read = [k for k in self._head_keys if self.memory and k not in self.memory.out_keys]
        self.in_keys: list[NestedKey] = (
            list(network.in_keys) if self.memory is None else [*self.memory.in_keys, *read]
        )
        one_output = len(head.out_keys) == 1
        self.is_stateless = one_output and StatelessNetwork.supports(head)
        self._stateless = StatelessNetwork(head, parts[0].prefix) if self.is_stateless else None
        # Else it may count on how many dimensions a batch has, as a convolution does.
        self.is_row_by_row = self._stateless is not None and self._stateless.is_row_by_row

    def recall(self, states: TensorDictBase, params: ParameterSets) -> list[TensorDictBase]:
        """What each member of a recurrent network remembers in each state: ``C`` times ``[*B]``.

        Empty if nothing is recurrent.
        """
        if self.memory is None:
            return []
        recalled = []
        for role, member in _members(params):
            with member.to_module(self.network, preserve_module_state=False):
                recalled.append(self.memory(states, role))
        return recalled

    def burn_in(
        self, past: TensorDictBase, params: ParameterSets
    ) -> dict[str, dict[NestedKey, Tensor]]:
        """What each member of a recurrent network remembers after the steps of ``past``."""
        if self.memory is None:
            return {}
        states = {}
        for role, member in _members(params):
            with member.to_module(self.network, preserve_module_state=False):
                states[role] = self.memory.burn_in(past)
        return states

    def __call__(
        self,
        inputs: TensorDictBase | dict[NestedKey, Tensor],
        params: ParameterSets,
        out_key: NestedKey,
        batch_size: torch.Size,
        *,
        recalled: Sequence[TensorDictBase] = (),
        hidden_dtype: torch.dtype | None = None,
        vmap_randomness: str | None = None,
    ) -> Tensor:
        """The network's output under each set, stacked in a first dimension: ``[C, *B, ...]``.

        Args:
            inputs (TensorDictBase or dict): what stands under ``in_keys``; unchanged.
            params (ParameterSets): ``C`` sets of parameters.
            out_key (NestedKey): the output to return.
            batch_size (torch.Size): ``*B``.

        Keyword Args:
            recalled (sequence of TensorDictBase): for each member what :meth:`recall` gave, on
                the batch ``*B``.
            hidden_dtype (torch.dtype, optional): see
                :class:`~mpo_torchrl.stateless.StatelessNetwork`; a network that is no chain of
                layers is evaluated in the precision of its parameters.
            vmap_randomness (str, optional): use one :func:`torch.vmap` with this treatment of
                random operations in place of the loop.

        Raises:
            KeyError: if the network does not write ``out_key``.
        """
        stateless = self._stateless
        if vmap_randomness is None and stateless is not None and not stateless.is_hooked:
            _require_output(out_key, self._head.out_keys)
            members = params.members()
            if recalled:
                return torch.stack(
                    [
                        stateless(m, self._inputs(inputs, own), hidden_dtype)
                        for m, own in zip(members, recalled, strict=True)
                    ]
                )
            tensors = tuple(inputs[key] for key in self.in_keys)
            return torch.stack([stateless(m, tensors, hidden_dtype) for m in members])
        if recalled:
            return self._evaluate_heads(inputs, recalled, params, out_key, batch_size)
        given = {key: inputs.get(key) for key in self.in_keys}
        # Where agents have a dimension, what they share has not.
        common = min(value.ndim for value in given.values() if value is not None) - 1
        tensordict = TensorDict(given, batch_size[:common])
        return self._evaluate(tensordict, params.params, out_key, vmap_randomness)

    def _inputs(
        self, inputs: TensorDictBase | dict[NestedKey, Tensor], own: TensorDictBase
    ) -> tuple[Tensor, ...]:
        """What a head reads: what its member remembers, and the rest."""
        mine = own.keys(True, True)
        return tuple(own.get(k) if k in mine else inputs[k] for k in self._head_keys)

    def _evaluate_heads(
        self,
        inputs: TensorDictBase | dict[NestedKey, Tensor],
        recalled: Sequence[TensorDictBase],
        params: ParameterSets,
        out_key: NestedKey,
        batch_size: torch.Size,
    ) -> Tensor:
        outputs = []
        for own, (_, member) in zip(recalled, _members(params), strict=True):
            entries = dict(zip(self._head_keys, self._inputs(inputs, own), strict=True))
            with member.to_module(self.network, preserve_module_state=False):
                outputs.append(output_of(self._head(TensorDict(entries, batch_size)), out_key))
        return torch.stack(outputs)

    def _evaluate(
        self,
        inputs: TensorDictBase,
        params: TensorDictBase,
        out_key: NestedKey,
        vmap_randomness: str | None,
    ) -> Tensor:
        if vmap_randomness is not None and params.batch_dims:
            batched = _vmap_func(self.network, (None, 0), randomness=vmap_randomness)
            return output_of(batched(inputs, params), out_key)
        outputs = []
        for member in params.unbind(0) if params.batch_dims else (params,):
            with member.to_module(self.network, preserve_module_state=False):
                outputs.append(output_of(self.network(inputs.copy()), out_key))
        return torch.stack(outputs)


def _members(params: ParameterSets) -> list[tuple[str, TensorDictBase]]:
    """Each set of parameters, and the name under which a memory is kept for it."""
    sets = params.params
    members = sets.unbind(0) if sets.batch_dims else (sets,)
    return [(f"{params.role}_{number}", member) for number, member in enumerate(members)]


def output_of(tensordict: TensorDictBase, out_key: NestedKey) -> Tensor:
    """What a critic wrote under ``out_key``; raises ``KeyError`` if it wrote elsewhere."""
    _require_output(out_key, list(tensordict.keys(True, True)))
    return tensordict.get(out_key)


def _require_output(out_key: NestedKey, written: list[NestedKey]) -> None:
    if out_key not in written:
        raise MissingEntryError(
            f"the critic must write the key {out_key!r}, it wrote {listed(written)}; name its "
            "output with set_keys(state_action_value=...)."
        )
