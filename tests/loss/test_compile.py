from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch._dynamo.utils import counters

from mpo_torchrl import MPOLoss
from mpo_torchrl.modules import make_actor, make_critics
from mpo_torchrl.targets import FusedSoftUpdate
from tests.loss.builders import SPEC, O, make_batch

CASES = pytest.mark.parametrize(
    ("policy", "settings"),
    [
        ("gaussian", {"scoring_dtype": torch.bfloat16}),
        ("gaussian", {"scoring_dtype": torch.bfloat16, "num_blocks": 2}),
        ("gaussian", {"delay_actor": False, "epsilon_penalty": None}),
        ("tanh_normal", {"e_step_critic": "target", "num_bootstrap_samples": 3}),
    ],
    ids=str,
)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def make_loss(policy: str = "gaussian", num_blocks: int = 0, **settings) -> MPOLoss:
    critics = make_critics(O, SPEC, num_cells=(8,), num_blocks=num_blocks)
    loss = MPOLoss(make_actor(O, SPEC, policy=policy, num_cells=(8,)), critics, **settings)
    return loss.make_value_estimator(gamma=0.99)


def run(loss: nn.Module, batch) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(loss(batch.copy()).items())


def assert_same_numbers(loss: MPOLoss, compiled: nn.Module) -> None:
    for seed in range(3):
        torch.manual_seed(100 + seed)
        batch = make_batch(6)
        eager = run(loss, batch)
        gradients = []
        for losses in (eager, run(compiled, batch)):
            for key, value in losses.items():
                torch.testing.assert_close(value, eager[key], msg=f"{key} differs")
            loss.zero_grad()
            sum(value for key, value in losses.items() if key.startswith("loss")).backward()
            gradients.append([p.grad.clone() for p in loss.parameters() if p.grad is not None])
        torch.testing.assert_close(*gradients)


def assert_one_graph() -> None:
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1  # hence nothing was compiled a second time


@CASES
def test_the_loss_is_one_graph_and_gives_the_same_numbers(policy: str, settings: dict) -> None:
    loss = make_loss(policy, **settings)
    run(loss, make_batch(6))  # the first batch is looked at for numbers that are not finite
    assert_same_numbers(loss, torch.compile(loss, fullgraph=True, backend="aot_eager"))
    assert_one_graph()


@pytest.mark.skipif(shutil.which("g++") is None, reason="the default compiler needs g++")
def test_the_default_compiler_gives_the_same_numbers() -> None:
    loss = make_loss(scoring_dtype=torch.float32)
    run(loss, make_batch(6))
    # Draws are those of eager mode, so that the numbers can be compared.
    with torch._inductor.config.patch(fallback_random=True):
        assert_same_numbers(loss, torch.compile(loss, fullgraph=True))
    assert_one_graph()


class Update:
    """From a batch to updated targets, as a recipe writes it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.loss = make_loss()
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=0.01, fused=True)
        self.target_updater = FusedSoftUpdate(self.loss, tau=0.1)

    def differentiate(self, batch: TensorDict) -> TensorDict:
        losses = self.loss(batch)
        sum(value for key, value in losses.items() if key.startswith("loss")).backward()
        return losses.detach()

    def run(self, batches: list[TensorDict], compiler: Callable) -> list[TensorDict]:
        run(self.loss, batches[0])  # the first batch is looked at,
        self.target_updater.step()  # and the first step looks up what it moves
        differentiate = compiler(self.differentiate)
        move_targets = compiler(self.target_updater.step)
        outputs = []
        for batch in batches:
            outputs.append(differentiate(batch.copy()))
            self.optimizer.step()  # a graph break by torch's own hand, and one call as it is
            self.optimizer.zero_grad()
            move_targets()
        return outputs


def test_the_whole_update_is_two_graphs_around_the_optimizer_and_gives_the_same_numbers() -> None:
    def compiler(function: Callable) -> Callable:
        return torch.compile(function, fullgraph=True, backend="aot_eager")

    batches = [make_batch(6) for _ in range(4)]
    found, expected = [], []
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        for compile_, into in ((compiler, found), (lambda function: function, expected)):
            update = Update()
            into += [dict(losses.items()) for losses in update.run(batches, compile_)]
            into.append(dict(update.loss.state_dict()))
    torch.testing.assert_close(found, expected)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2  # hence nothing was compiled a second time


class Synchronizing(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses what makes an accelerator wait for its results."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "item"), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", ["gaussian", "tanh_normal"])
def test_a_forward_reads_no_value_back(policy: str) -> None:
    loss, batch = make_loss(policy), make_batch(6)
    run(loss, batch)
    with Synchronizing():
        run(loss, batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_replays_the_loss() -> None:
    loss = make_loss().to("cuda")
    batch = make_batch(6).to("cuda")
    for _ in range(3):
        run(loss, batch)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        captured = loss(batch)
    graph.replay()
    assert all(bool(value.isfinite()) for value in captured.values())


if __name__ == "__main__":
    pytest.main([__file__])
