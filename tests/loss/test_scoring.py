"""The E-step's critics run in reduced precision where that is faster, and nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn

from mpo_torchrl import MPOLoss
from mpo_torchrl.functional import nonparametric_weights
from mpo_torchrl.modules import ResidualBlock, make_actor, make_critics
from mpo_torchrl.precision import fast_scoring_dtype
from mpo_torchrl.stateless import ParameterSets, StatelessNetwork
from tests.loss.builders import SPEC, A, O, make_batch

LEVELS = pytest.mark.parametrize("level", [10.0, 100.0, 1000.0, 10_000.0])
EPSILON = 0.1


def make_loss(scoring_dtype: torch.dtype | str = "auto", **networks: Any) -> MPOLoss:
    critics = make_critics(O, SPEC, num_cells=(256, 256), **networks)
    actor = make_actor(O, SPEC, num_cells=(16,))
    return MPOLoss(actor, critics, epsilon=EPSILON, scoring_dtype=scoring_dtype)


def scores(loss: MPOLoss, batch, action, hidden_dtype) -> torch.Tensor:
    with torch.no_grad():
        params = ParameterSets(loss.qvalue_network_params)
        return loss.critic.value(loss._predict(batch, action, params, hidden_dtype))


def shift(loss: MPOLoss, batch, action, level: float) -> None:
    """Puts values near ``level``, with a stddev of 1 over the actions of a state."""
    spread = scores(loss, batch, action, None).std(-1).mean()
    body = loss.qvalue_network_params["module", "body"]
    last = body[max(key for key in body.keys() if "weight" in body[key].keys())]
    for parameter in last.values():
        parameter.data.div_(spread)
    last["bias"].data.add_(level - scores(loss, batch, action, None).mean())


@LEVELS
@pytest.mark.parametrize("networks", [{}, {"layer_norm": False}, {"num_blocks": 2}], ids=str)
def test_bfloat16_scoring_changes_the_weights_by_less_than_a_hundredth_of_the_bound(
    level: float, networks: dict
) -> None:
    loss, batch = make_loss(**networks), make_batch(64)
    action = 2 * torch.rand(64, 20, A) - 1
    shift(loss, batch, action, level)
    exact = scores(loss, batch, action, None)
    assert exact.mean() == pytest.approx(level, rel=1e-3)
    for temperature in (0.5, 1.0, 2.0):
        weight = nonparametric_weights(exact, temperature)
        reduced = nonparametric_weights(scores(loss, batch, action, torch.bfloat16), temperature)
        kl = (weight * (weight / reduced).log()).sum(-1).mean()
        assert kl < 0.01 * EPSILON


def test_without_the_last_layer_in_float32_the_weights_would_be_lost() -> None:
    loss, batch = make_loss(), make_batch(64)
    action = 2 * torch.rand(64, 20, A) - 1
    shift(loss, batch, action, 1000.0)
    exact = scores(loss, batch, action, None)
    weight = nonparametric_weights(exact, 1.0)
    rounded = nonparametric_weights(exact.bfloat16().float(), 1.0)
    assert (weight * (weight / rounded).log()).sum(-1).mean() > 0.1 * EPSILON


class OwnBlock(ResidualBlock):
    """One that does not say of itself that it may be computed in another precision."""


@pytest.mark.parametrize(
    ("layer", "is_cast"),
    [(ResidualBlock(8), True), (OwnBlock(8), False), (nn.PReLU(), False)],
    ids=lambda value: type(value).__name__,
)
def test_hidden_layers_are_cast_if_all_say_that_they_can_be(
    layer: nn.Module, is_cast: bool
) -> None:
    body = nn.Sequential(nn.Linear(3, 8), layer, nn.Linear(8, 1))
    network = StatelessNetwork(TensorDictModule(body, ["x"], ["y"]))
    params, x = {f"module.{k}": v for k, v in body.state_dict().items()}, torch.randn(5, 3)
    reduced = network(params, (x,), torch.bfloat16)
    assert reduced.dtype == torch.float32
    assert torch.equal(reduced, network(params, (x,))) != is_cast
    torch.testing.assert_close(reduced, network(params, (x,)), rtol=0.05, atol=0.05)


def test_scoring_returns_float32_whatever_the_hidden_layers_are() -> None:
    loss, batch = make_loss(), make_batch(4)
    action = torch.zeros(4, 20, A)
    assert scores(loss, batch, action, torch.bfloat16).dtype == torch.float32


def linear_dtypes(loss: MPOLoss, monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The precisions of all products of one forward, apart from those of the E-step's scores."""
    seen: set[torch.dtype] = set()
    inside: list[bool] = []
    linear, predict = nn.functional.linear, loss._predict

    def watch(x, weight, bias=None):
        if not inside:
            seen.add(weight.dtype)
        return linear(x, weight, bias)

    def predicted(states, action, params, hidden_dtype=None):
        if hidden_dtype is None:
            return predict(states, action, params)
        inside.append(True)
        try:
            return predict(states, action, params, hidden_dtype)
        finally:
            inside.pop()

    monkeypatch.setattr(nn.functional, "linear", watch)
    loss.__dict__["_predict"] = predicted
    loss(make_batch(4))
    return seen


def test_targets_and_losses_of_the_critic_are_never_reduced(monkeypatch) -> None:
    assert linear_dtypes(make_loss(torch.bfloat16), monkeypatch) == {torch.float32}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("after", [nn.Identity, nn.Linear])  # one is overwritten, one is not
def test_tanh_in_reduced_precision_is_tanh_rounded_once(compiled: bool, after: type) -> None:
    x = torch.linspace(-9, 9, 999).unsqueeze(-1)
    network = TensorDictModule(nn.Sequential(after(1, 1), nn.Tanh()), ["x"], ["y"])
    run = StatelessNetwork(network)._run
    params = {"module.0.weight": torch.ones(1, 1), "module.0.bias": torch.zeros(1)}
    params = {name: value.bfloat16() for name, value in params.items()}
    if compiled:
        run = torch.compile(run, backend="aot_eager")
    with torch.no_grad():
        result = run(params, (x.bfloat16(),))
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result, x.bfloat16().float().tanh().bfloat16())


def test_float64_networks_score_in_float64() -> None:
    loss = make_loss().double()
    batch = make_batch(4).to(torch.float64)
    assert loss.e_step(batch)["e_step", "state_action_value"].dtype == torch.float64
    assert loss._fast_dtype == torch.float64


def test_the_scoring_precision_can_be_set_later() -> None:
    loss, batch = make_loss(), make_batch(4)
    values = []
    for dtype in (torch.float32, torch.bfloat16):
        loss.scoring_dtype = dtype
        torch.manual_seed(0)
        values.append(loss.e_step(batch.copy())["e_step", "state_action_value"])
    assert not torch.equal(*values)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_reduced_precision_needs_hardware_for_it(monkeypatch, capabilities, expected) -> None:
    from mpo_torchrl import precision

    precision._multiplies_bfloat16.cache_clear()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fast_scoring_dtype(torch.device("cpu"), torch.float32) == expected
    assert fast_scoring_dtype(torch.device("cpu"), torch.float64) == torch.float64
    precision._multiplies_bfloat16.cache_clear()


@pytest.mark.parametrize("value", ["bfloat16", torch.int32, 16])
def test_an_impossible_precision_raises(value) -> None:
    with pytest.raises(ValueError, match="scoring_dtype must be 'auto' or a dtype"):
        make_loss(value)


def test_large_batches_are_scored_in_pieces_to_the_same_values(monkeypatch) -> None:
    loss, batch = make_loss(), make_batch(100)
    action = 2 * torch.rand(100, 20, A) - 1
    in_pieces = scores(loss, batch, action, None)
    monkeypatch.setattr("mpo_torchrl.stateless._BYTES_IN_CACHE", 2**60)
    torch.testing.assert_close(in_pieces, scores(loss, batch, action, None))


if __name__ == "__main__":
    pytest.main([__file__])
