"""One network, several sets of parameters."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.objectives.utils import _vmap_func

from mpo_torchrl.errors import MissingEntryError, listed
from mpo_torchrl.stateless import ParameterSets, StatelessNetwork


class Ensemble:
    """Evaluates a network under each of several sets of parameters.

    The sets are looped over: on a CPU that takes two thirds of the time of
    :func:`torch.vmap`, since batched products of small matrices are slow there.

    Args:
        network (TensorDictModuleBase): the network; its own parameters are not used.
    """

    def __init__(self, network: TensorDictModuleBase) -> None:
        self.network = network
        self.in_keys: list[NestedKey] = list(network.in_keys)
        one_output = len(network.out_keys) == 1
        self.is_stateless = one_output and StatelessNetwork.supports(network)
        self._stateless = StatelessNetwork(network) if self.is_stateless else None

    def __call__(
        self,
        inputs: TensorDictBase | dict[NestedKey, Tensor],
        params: ParameterSets,
        out_key: NestedKey,
        batch_size: torch.Size,
        *,
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
            _require_output(out_key, self.network.out_keys)
            tensors = tuple(inputs[key] for key in self.in_keys)
            members = params.members()
            return torch.stack([stateless(m, tensors, hidden_dtype) for m in members])
        given = {key: inputs.get(key) for key in self.in_keys}
        # Where agents have a dimension, what they share has not.
        common = min(value.ndim for value in given.values() if value is not None) - 1
        tensordict = TensorDict(given, batch_size[:common])
        return self._evaluate(tensordict, params.params, out_key, vmap_randomness)

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
