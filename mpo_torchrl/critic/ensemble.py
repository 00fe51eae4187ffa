"""One network, several sets of parameters."""

from __future__ import annotations

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.objectives.utils import _vmap_func


def evaluate_ensemble(
    network: TensorDictModuleBase,
    tensordict: TensorDictBase,
    params: TensorDictBase,
    out_key: NestedKey,
    *,
    vmap_randomness: str | None = None,
) -> Tensor:
    """The network's output under each set of parameters, stacked in a first dimension ``C``.

    Args:
        network (TensorDictModuleBase): the network; its own parameters are not used.
        tensordict (TensorDictBase): its input, left unchanged.
        params (TensorDictBase): ``[C]`` parameters, or ``[]`` for a single set.
        out_key (NestedKey): the output to return.

    Keyword Args:
        vmap_randomness (str, optional): run one :func:`torch.vmap` with this treatment of
            random operations. By default the sets are looped over: on a CPU that takes two
            thirds of the time, since batched products of small matrices are slow there.

    Returns:
        Tensor: ``[C, *B, ...]``.
    """
    inputs = tensordict.select(*network.in_keys, strict=False)
    if vmap_randomness is not None and params.batch_dims:
        batched = _vmap_func(network, (None, 0), randomness=vmap_randomness)
        return _output(batched(inputs, params), out_key)
    members = params.unbind(0) if params.batch_dims else (params,)
    outputs = []
    for member in members:
        with member.to_module(network, preserve_module_state=False):
            outputs.append(_output(network(inputs.copy()), out_key))
    return torch.stack(outputs)


def _output(tensordict: TensorDictBase, out_key: NestedKey) -> Tensor:
    output = tensordict.get(out_key, None)
    if output is None:
        raise KeyError(
            f"the critic must write the key {out_key!r}, it wrote "
            f"{sorted(map(str, tensordict.keys(True, True)))}; name its output with "
            "set_keys(state_action_value=...)."
        )
    return output
