"""The loss of an update as one compiled function."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import nn

from mpo_torchrl.loss.base import LagrangianLoss
from mpo_torchrl.trainer.settings import SettingError

UpdateLoss = Callable[[TensorDictBase], TensorDictBase]


def update_loss(loss: LagrangianLoss, *, compile: bool) -> UpdateLoss:
    """What an update calls: the loss itself, or the loss compiled into one graph.

    The compiled one draws the same random numbers and gives the same losses and gradients up to
    rounding. It compiles at its first call, for half a minute or more.

    Args:
        loss (LagrangianLoss): the loss; it goes on owning every parameter.

    Keyword Args:
        compile (bool): whether to compile it.

    Returns:
        UpdateLoss: takes a batch and gives the losses, as the loss does.

    Raises:
        SettingError: if a network is recurrent, or networks are on a CPU and there is no C++
            compiler.

    Examples:
        >>> from torchrl.data import Bounded
        >>> from mpo_torchrl import MPOLoss
        >>> from mpo_torchrl.modules import make_actor, make_critics
        >>> from mpo_torchrl.trainer.compiled import update_loss
        >>> spec = Bounded(-1.0, 1.0, shape=(1,))
        >>> loss = MPOLoss(make_actor(3, spec), make_critics(3, spec))
        >>> update_loss(loss, compile=False) is loss
        True
    """
    if not compile:
        return loss
    if any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in _networks(loss)):
        raise SettingError(
            "compile=true cannot compile recurrent networks, which torch's compiler does not take; "
            "take compile=false."
        )
    compiler = os.environ.get("CXX", "g++")
    on_cpu = next(loss.parameters()).device.type == "cpu"
    if on_cpu and shutil.which(compiler) is None:
        raise SettingError(
            f"compile=true needs a C++ compiler on a CPU, and there is no {compiler!r}: install "
            "one, name one in CXX, or take compile=false."
        )
    # With torch's own generator: its state is saved with a run, which then continues bit for bit.
    options: dict[str, str | int | bool | Callable[..., Any]] = {"fallback_random": True}
    if on_cpu:  # kernels of a few microseconds, called from C++ instead of Python
        options["cpp_wrapper"] = True
    compiled = torch.compile(loss, fullgraph=True, options=options)

    def call(batch: TensorDictBase) -> TensorDictBase:
        loss.require_first_finite(batch)  # nothing in a graph may look at numbers
        return compiled(batch)

    return call


def _networks(loss: LagrangianLoss) -> Iterator[nn.Module]:
    """Every module of the networks, which a loss does not count among its own."""
    for name in loss.network_names:
        yield from getattr(loss, name).modules()
