"""What is measured: one update of MPO, of its peers, and the matrix products alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import LossModule, SACLoss, SoftUpdate
from torchrl.objectives.utils import TargetNetUpdater

from mpo_torchrl import MPOConfig, MPOLoss
from mpo_torchrl.trainer import make_optimizer, make_target_updater

HIDDEN = 256
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler needs g++")


class Shape(NamedTuple):
    """The sizes of an environment."""

    env: str
    observation: int
    action: int


HALFCHEETAH = Shape("HalfCheetah-v5", 17, 6)
PENDULUM = Shape("Pendulum-v1", 3, 1)


def make_batch(shape: Shape, batch_size: int) -> TensorDict:
    """A batch as replay gives it."""
    return TensorDict(
        observation=torch.randn(batch_size, shape.observation),
        action=torch.rand(batch_size, shape.action) * 2 - 1,
        next=TensorDict(
            observation=torch.randn(batch_size, shape.observation),
            reward=torch.randn(batch_size, 1),
            done=torch.zeros(batch_size, 1, dtype=torch.bool),
            terminated=torch.zeros(batch_size, 1, dtype=torch.bool),
            batch_size=batch_size,
        ),
        batch_size=batch_size,
    )


def make_networks(shape: Shape) -> tuple[ProbabilisticActor, ValueOperator]:
    """The actor and the critic of TorchRL's SAC example, ours and SAC's alike."""
    cells: dict[str, Any] = {"num_cells": [HIDDEN, HIDDEN], "activation_class": nn.ReLU}
    net = MLP(in_features=shape.observation, out_features=2 * shape.action, **cells)
    actor = ProbabilisticActor(
        TensorDictModule(
            nn.Sequential(net, NormalParamExtractor()), ["observation"], ["loc", "scale"]
        ),
        in_keys=["loc", "scale"],
        spec=action_spec(shape),
        distribution_class=TanhNormal,
    )
    critic = MLP(in_features=shape.observation + shape.action, out_features=1, **cells)
    return actor, ValueOperator(critic, ["observation", "action"])


def action_spec(shape: Shape) -> Bounded:
    return Bounded(-1.0, 1.0, (shape.action,))


class Update:
    """From a sampled batch to updated targets: loss, backward, optimizer and target update."""

    def __init__(
        self,
        loss: LossModule,
        batch: TensorDict,
        optimizer: torch.optim.Optimizer,
        targets: TargetNetUpdater,
    ) -> None:
        loss.make_value_estimator(gamma=0.99)
        self.loss, self.batch = loss, batch
        self.optimizer, self.targets = optimizer, targets

    def __call__(self) -> None:
        losses = self.loss(self.batch)
        self.optimizer.zero_grad()
        sum(losses[key] for key in losses.keys() if key.startswith("loss")).backward()
        self.optimizer.step()
        self.targets.step()


def mpo_update(
    shape: Shape, *, num_action_samples: int = 20, batch_size: int = 256, **settings: Any
) -> Update:
    """Our update as the recipe does it: our defaults, its optimizer and its target updater."""
    loss = MPOLoss(*make_networks(shape), num_action_samples=num_action_samples, **settings)
    config = MPOConfig()
    return Update(
        loss,
        make_batch(shape, batch_size),
        make_optimizer(loss, config),
        make_target_updater(loss, config),
    )


def sac_update(shape: Shape, *, batch_size: int = 256) -> Update:
    """TorchRL's own SAC on the same networks, with the optimizer and updater of its examples."""
    loss = SACLoss(*make_networks(shape), action_spec=action_spec(shape))
    return Update(
        loss,
        make_batch(shape, batch_size),
        torch.optim.Adam(loss.parameters(), lr=3e-4),
        SoftUpdate(loss, tau=0.005),
    )


def rlox_update(shape: Shape, *, batch_size: int = 256) -> Callable[[], object]:
    """The update of rlox's MPO, given its batch as ours is."""
    from rlox.algorithms.mpo import MPO

    agent = MPO(shape.env, n_action_samples=20, hidden=HIDDEN, batch_size=batch_size)
    td = make_batch(shape, batch_size)
    batch = {
        "obs": td["observation"].numpy(),
        "actions": td["action"].numpy(),
        "rewards": td["next", "reward"].squeeze(-1).numpy(),
        "next_obs": td["next", "observation"].numpy(),
        "terminated": td["next", "terminated"].squeeze(-1).numpy(),
    }
    agent.buffer = SimpleNamespace(sample=lambda batch_size, step: batch)
    return lambda: agent._update(batch_size)


class _Products(TorchDispatchMode):
    """Writes down the operands of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "baddbmm"):
            left, right = args[-2:]
            self.operands.append((_like(left), _like(right)))
        return func(*args, **(kwargs or {}))


def _like(tensor: Tensor) -> Tensor:
    """A tensor of the same shape, dtype and memory layout with other numbers."""
    if 0 in tensor.stride():
        return torch.randn(tensor.shape).to(tensor.dtype)
    like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return like.copy_(torch.randn(tensor.shape))


class Products:
    """The matrix products of an update, forward and backward, and nothing else.

    They are written down while the update runs, so shapes, dtypes and layouts are the very same.
    """

    def __init__(self, update: Callable[[], object]) -> None:
        update()
        with _Products() as products:
            update()
        self.operands = products.operands

    def __call__(self) -> None:
        for left, right in self.operands:
            torch.matmul(left, right)

    @property
    def gigaflop(self) -> float:
        """Multiplications and additions, in 1e9."""
        return sum(2 * x.numel() * y.shape[-1] for x, y in self.operands) / 1e9

    @property
    def scoring_dtype(self) -> torch.dtype:
        """That of the largest product."""
        return max(self.operands, key=lambda pair: pair[0].numel() * pair[1].shape[-1])[0].dtype


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes of tensors that were alive at once beyond those that were there before."""
    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        function()
    assert prof.profiler is not None and prof.profiler.kineto_results is not None
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak
