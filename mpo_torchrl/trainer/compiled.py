"""What an update differentiates: a loss, compiled or not, of all parts or at times the critics."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import nn

from mpo_torchrl.loss.improvement import ImprovementLoss
from mpo_torchrl.trainer.policy_delay import CriticLoss, DelayedPolicy, UpdateLoss
from mpo_torchrl.trainer.settings import SettingError


def update_loss(loss: ImprovementLoss, *, compile: bool, policy_delay: int = 1) -> UpdateLoss:
    """What an update calls: the loss itself, or the loss compiled into one graph.

    The compiled one draws the same random numbers and gives the same losses and gradients up to
    rounding. It compiles at its first call, for half a minute or more.

    Args:
        loss (ImprovementLoss): the loss; it goes on owning every parameter.

    Keyword Args:
        compile (bool): whether to compile it.
        policy_delay (int): of so many calls the last gives the losses of all parts, the others
            only that of the critics.

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
    if compile:
        _require_compilable(loss)

    def prepared(part: UpdateLoss) -> UpdateLoss:
        return _compiled(part, loss) if compile else part

    if policy_delay == 1:
        return prepared(loss)
    return DelayedPolicy(prepared(loss), prepared(CriticLoss(loss)), policy_delay)


def _require_compilable(loss: ImprovementLoss) -> None:
    if any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in _networks(loss)):
        raise SettingError(
            "compile=true cannot compile recurrent networks, which torch's compiler does not take; "
            "take compile=false."
        )
    compiler = os.environ.get("CXX", "g++")
    if _is_on_cpu(loss) and shutil.which(compiler) is None:
        raise SettingError(
            f"compile=true needs a C++ compiler on a CPU, and there is no {compiler!r}: install "
            "one, name one in CXX, or take compile=false."
        )


def _compiled(part: UpdateLoss, loss: ImprovementLoss) -> UpdateLoss:
    # With torch's own generator: its state is saved with a run, which then continues bit for bit.
    options: dict[str, str | int | bool | Callable[..., Any]] = {"fallback_random": True}
    if _is_on_cpu(loss):  # kernels of a few microseconds, called from C++ instead of Python
        options["cpp_wrapper"] = True
    compiled = torch.compile(part, fullgraph=True, options=options)

    def call(batch: TensorDictBase) -> TensorDictBase:
        loss.require_first_finite(batch)  # nothing in a graph may look at numbers
        return compiled(batch)

    return call


def _is_on_cpu(loss: ImprovementLoss) -> bool:
    return next(loss.parameters()).device.type == "cpu"


def _networks(loss: ImprovementLoss) -> Iterator[nn.Module]:
    """Every module of the networks, which a loss does not count among its own."""
    for name in loss.network_names:
        yield from getattr(loss, name).modules()
