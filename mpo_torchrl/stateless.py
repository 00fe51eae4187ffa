"""Networks as plain functions of parameters and tensors.

An update calls its networks nine times with six sets of parameters. Swapping parameters into
a module and passing a TensorDict through it costs more than the arithmetic of a small layer;
a network that is a chain of layers needs neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from copy import copy
from numbers import Number
from typing import Any, cast

import torch
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictParams
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torchrl.modules import MLP, SafeModule, ValueOperator

Parameters = dict[str, Tensor]


class ParameterSets:
    """``C`` sets of parameters of one network, under the names its modules give them.

    Args:
        params (TensorDictBase): ``[C]`` stacked parameters, or ``[]`` for a single set.
        frozen (collection of NestedKey): parameters that are not to be trained from here.
        role (str): what the sets are for, e.g. ``"target_actor_network"``: recurrent networks
            remember something else under each.
    """

    def __init__(
        self, params: TensorDictBase, frozen: Collection[NestedKey] = (), role: str = ""
    ) -> None:
        self.role = role
        if frozen:
            params = params.named_apply(
                lambda key, p: p.detach() if key in frozen else p, nested_keys=True
            )
        self.params = params
        self.count = params.shape[0] if params.batch_dims else 1
        # The tensors themselves, not copies: in-place updates are seen without a new look-up.
        self._leaves: Parameters = {
            key if isinstance(key, str) else ".".join(key): value
            for key, value in params.items(include_nested=True, leaves_only=True)
        }

    def members(self) -> list[Parameters]:
        """Each set by itself, connected to the stacked parameters if gradients are on."""
        if not self.params.batch_dims:
            return [self._leaves]
        unbound = {name: leaf.unbind(0) for name, leaf in self._leaves.items()}
        return [{name: rows[c] for name, rows in unbound.items()} for c in range(self.count)]


class StatelessNetwork:
    """A TensorDict module whose network is a chain of layers, called without either.

    Args:
        network (TensorDictModule): the module, supported by :meth:`supports`.
        prefix (str): what precedes the names of its parameters.
    """

    def __init__(self, network: TensorDictModule, prefix: str = "") -> None:
        self._hookable = list(network.modules())
        self._joins_inputs = type(network.module) is MLP
        self._layers = [
            _Layer(layer, name) for layer, name in _chain(network.module, f"{prefix}module.")
        ]
        self.is_row_by_row = all(_is_row_by_row(layer.module) for layer in self._layers)
        linear = [i for i, layer in enumerate(self._layers) if layer.kind is nn.Linear]
        # What runs in low precision: layers before the last linear one, if all can.
        hidden = self._layers[linear[0] : linear[-1]] if linear else []
        self._castable = [layer for layer in hidden if _is_castable(layer.module)]
        if any(layer.names for layer in hidden if layer not in self._castable):
            self._castable = []

    @staticmethod
    def supports(network: TensorDictModuleBase) -> bool:
        """Whether the chain computes just what calling the module would."""
        if type(network) not in (TensorDictModule, SafeModule, ValueOperator):
            return False
        # Neither another method than forward, nor inputs by name, nor parameters used twice.
        named = list(network.named_parameters(remove_duplicate=False))
        twice = len(named) != len(list(network.parameters()))
        plain = network.method is None and network._kwargs is None and not twice
        # Networks of several agents keep their parameters in a TensorDict of their own.
        plain = plain and not any(isinstance(m, TensorDictParams) for m in network.modules())
        plain = plain and (len(network.in_keys) == 1 or _takes_several(network.module))
        return plain and not any(
            _has_hooks(module)
            or parametrize.is_parametrized(module)
            or any(nn.parameter.is_lazy(p) for p in module.parameters(recurse=False))
            for module in network.modules()
        )

    @property
    def is_hooked(self) -> bool:
        """Whether hooks were put on the network since; then it has to be called as a module."""
        return any(_has_hooks(module) for module in self._hookable)

    def __call__(
        self,
        params: Parameters,
        inputs: tuple[Tensor, ...],
        hidden_dtype: torch.dtype | None = None,
    ) -> Any:
        """What the network's last layer returns, a tensor or several.

        Args:
            params (dict): parameters and buffers by name.
            inputs (tuple of Tensor): what stands under the network's ``in_keys``.
            hidden_dtype (torch.dtype, optional): compute every linear layer but the last, and
                what lies between them, in this precision. The last one and what follows run
                in that of their parameters, and so does all if parameters of another kind of
                layer lie between. Autocast means the same here, with its precision.
        """
        device = inputs[0].device.type
        if torch.is_autocast_enabled(device):
            hidden_dtype = hidden_dtype or torch.get_autocast_dtype(device)
            with torch.autocast(device, enabled=False):
                return self(params, inputs, hidden_dtype)
        if hidden_dtype is not None:
            params = self._cast_hidden(params, hidden_dtype)
        if self._joins_inputs and len(inputs) > 1:
            inputs = (torch.cat(inputs, -1),)
        count = self._count_pieces(inputs, hidden_dtype or inputs[0].dtype)
        if count == 1:
            return self._run(params, inputs)
        pieces = zip(*(tensor.tensor_split(count) for tensor in inputs), strict=True)
        return torch.cat([self._run(params, piece) for piece in pieces])

    def _count_pieces(self, inputs: tuple[Tensor, ...], dtype: torch.dtype) -> int:
        """Into how many pieces of its first dimension to cut what is evaluated.

        On a CPU, activations that fit its cache are worth more than one large product. With
        gradients they are all kept anyway.
        """
        first = inputs[0]
        if torch.is_grad_enabled() or first.device.type != "cpu":
            return 1
        if first.ndim < 3 or not self.is_row_by_row:
            return 1
        rows = _BYTES_IN_CACHE // (_WIDTH * dtype.itemsize)
        return min(len(first), -(-first.shape[:-1].numel() // rows))

    def _cast_hidden(self, params: Parameters, dtype: torch.dtype) -> Parameters:
        params = dict(params)
        for layer in self._castable:
            for name in layer.names.values():
                if name in params:
                    params[name] = params[name].to(dtype)
        return params

    def _run(self, params: Parameters, inputs: tuple[Tensor, ...]) -> Any:
        output: Any = inputs
        fresh = False  # whether the tensor at hand is ours to overwrite
        for i, layer in enumerate(self._layers):
            if fresh and layer.kind in _IN_PLACE:
                output = _IN_PLACE[layer.kind](layer.module, output)
                continue
            # Of several inputs each is an argument; a tuple that a layer returns is one.
            output = layer(params, output if i == 0 else (output,))
            fresh = layer.kind is nn.Linear and not torch.is_grad_enabled()
        return output


_BYTES_IN_CACHE = 2**20  # half of a core's second-level cache, or all of it
_WIDTH = 256  # of hidden layers, as usual


def _is_row_by_row(layer: nn.Module) -> bool:
    """Whether each row of the layer's output is known to follow from that row of its input."""
    known = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.Dropout)
    activation = type(layer).__module__ == nn.ReLU.__module__
    return type(layer) in known or activation or getattr(layer, "is_row_by_row", False)


def _is_castable(layer: nn.Module) -> bool:
    """Whether the layer's class says that it computes in the precision of its parameters."""
    known = (nn.Linear, nn.LayerNorm)
    return type(layer) in known or vars(type(layer)).get("is_castable", False)


def _has_hooks(module: nn.Module) -> bool:
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(forward or module._backward_hooks or module._backward_pre_hooks)


class _Layer:
    """One layer of a chain as a function of its parameters."""

    def __init__(self, module: nn.Module, prefix: str) -> None:
        self.module = module
        self.kind = type(module)
        self.names = {
            name: f"{prefix}{name}"
            for name, _ in (*module.named_parameters(), *module.named_buffers())
        }
        # A copy of its own to put parameters into; modules with children go the general way.
        self._shell = copy(module) if self.names and not list(module.children()) else None
        if self._shell is not None:
            self._shell._parameters = dict(module._parameters)
            self._shell._buffers = dict(module._buffers)

    def __call__(self, params: Parameters, inputs: tuple[Tensor, ...]) -> Any:
        own = {name: params[full] for name, full in self.names.items() if full in params}
        if self.kind is nn.Linear:
            return _linear(inputs[0], own["weight"], own.get("bias"))
        if self.kind is nn.LayerNorm:
            norm = cast(nn.LayerNorm, self.module)
            shape = list(norm.normalized_shape)
            return nn.functional.layer_norm(
                inputs[0], shape, own.get("weight"), own.get("bias"), norm.eps
            )
        if self.kind is nn.Tanh and inputs[0].dtype in _LOW_PRECISION:
            return _tanh(inputs[0])
        if not own:
            return self.module(*inputs)
        if self._shell is None or torch.compiler.is_compiling():
            return torch.func.functional_call(self.module, own, inputs)
        shell: Any = self._shell
        for name, value in own.items():
            (shell._buffers if name in shell._buffers else shell._parameters)[name] = value
        for name, value in vars(self.module).items():  # whatever was changed since
            if name not in ("_parameters", "_buffers"):
                vars(shell)[name] = value
        try:
            return shell(*inputs)
        finally:  # what stays here would keep a graph alive, and cannot be copied
            for name in own:
                (shell._buffers if name in shell._buffers else shell._parameters)[name] = None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x W' + b`` in the precision of the weight."""
    if len(weight) == 1 and x.dtype != weight.dtype and torch.compiler.is_compiling():
        # A compiler makes one loop of the cast and the sum. Between a cast and a matrix product
        # all of x would be written once more in the higher precision.
        product = (x.to(weight.dtype) * weight[0]).sum(-1, keepdim=True)
        return product if bias is None else product + bias
    return nn.functional.linear(x.to(weight.dtype), weight, bias)


_LOW_PRECISION = (torch.bfloat16, torch.float16)


def _tanh(x: Tensor) -> Tensor:
    """``tanh`` of bfloat16 by way of float32: a third of the time of torch's own on a CPU."""
    wide = x.float()
    if torch.compiler.is_compiling():  # a compiler's tanh is the slow one; its sigmoid is not
        return (2 * torch.sigmoid(2 * wide) - 1).to(x.dtype)
    return wide.tanh_().to(x.dtype)


_IN_PLACE = {
    nn.ReLU: lambda layer, x: x.relu_(),
    nn.Tanh: lambda layer, x: _tanh(x) if x.dtype in _LOW_PRECISION else x.tanh_(),
    nn.ELU: lambda layer, x: nn.functional.elu_(x, layer.alpha),
}


def _takes_several(module: nn.Module) -> bool:
    """Whether the chain reads all of several inputs; an MLP joins its own, a layer reads one."""
    first, _ = next(_chain(module, ""))
    reads_one = type(module) is nn.Sequential or type(first) in (nn.Linear, nn.LayerNorm, nn.Tanh)
    return type(module) is MLP or not reads_one


def _is_chain(module: nn.Module) -> bool:
    # Only a class that says so itself: one derived from it may have a forward of its own.
    if type(module) is MLP:
        return isinstance(module.out_features, Number)  # of several it makes another shape
    return type(module) is nn.Sequential or "is_chain" in vars(type(module))


def _chain(module: nn.Module, prefix: str) -> Iterator[tuple[nn.Module, str]]:
    """The layers in the order of their calls, with the prefix of their parameters' names."""
    if _is_chain(module):
        for name, child in module._modules.items():  # a layer may occur twice
            if child is not None:
                yield from _chain(child, f"{prefix}{name}.")
    else:
        yield module, prefix
