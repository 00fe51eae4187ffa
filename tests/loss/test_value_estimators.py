"""Targets of the critic: which estimator, which discount, what of n-step data."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs.transforms import MultiStepTransform
from torchrl.modules import ValueOperator
from torchrl.objectives import ValueEstimators
from torchrl.objectives.value import TD0Estimator, TD1Estimator, TDLambdaEstimator

from mpo_torchrl import MPOLoss
from tests.loss.builders import make_actor, make_batch, make_loss

GAMMA, LAMBDA = 0.9, 0.7


class FirstNumber(nn.Module):
    """Says that the first number of a state is its value, plus an offset to be learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return observation[..., :1] + self.offset


def first_number_loss(**kwargs: Any) -> MPOLoss:
    critic = ValueOperator(FirstNumber(), in_keys=["observation", "action"])
    loss = MPOLoss(make_actor(), critic, num_qvalue_nets=1, **kwargs).double()
    with torch.no_grad():  # below every target
        next(iter(loss.qvalue_network_params.parameters())).fill_(-1000.0)
    return loss


def targets(loss: MPOLoss, batch: TensorDict) -> Tensor:
    _, readings = loss.qvalue_loss(batch)
    return readings["q_value"] + readings["td_error"]


def lambda_returns(batch: TensorDict, lmbda: float) -> Tensor:
    """One step at a time; lambda 0 is TD(0), 1 is TD(1)."""
    reward, done, terminated = (
        batch["next", key].squeeze(-1).double() for key in ("reward", "done", "terminated")
    )
    value = batch["next", "observation"][..., 0]
    returns = torch.zeros_like(reward)
    following = value[..., -1]
    for t in reversed(range(reward.shape[-1])):
        last = done[..., t] if t < reward.shape[-1] - 1 else torch.ones_like(following)
        continued = torch.where(
            last.bool(), value[..., t], (1 - lmbda) * value[..., t] + lmbda * following
        )
        following = reward[..., t] + GAMMA * (1 - terminated[..., t]) * continued
        returns[..., t] = following
    return returns


ESTIMATORS = {
    "td0": ((ValueEstimators.TD0, "td0", "TD0", TD0Estimator), {}, 0.0),
    "td1": ((ValueEstimators.TD1, "td1", "TD1", TD1Estimator), {}, 1.0),
    "tdlambda": (
        (ValueEstimators.TDLambda, "tdlambda", "TDLambda", TDLambdaEstimator),
        {"lmbda": LAMBDA},
        LAMBDA,
    ),
}


@pytest.mark.parametrize("spelling", range(4), ids=["enum", "alias", "name", "class"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_targets_are_the_lambda_returns(name: str, spelling: int) -> None:
    spellings, settings, lmbda = ESTIMATORS[name]
    if isinstance(spellings[spelling], type):
        settings = {**settings, "value_network": None}
    loss = first_number_loss()
    assert loss.make_value_estimator(spellings[spelling], gamma=GAMMA, **settings) is loss
    batch = make_batch(4, 6, dtype=torch.float64)
    torch.testing.assert_close(
        targets(loss, batch), lambda_returns(batch, lmbda), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("flags", [("done", "terminated"), ("done",)], ids=["both", "done"])
@pytest.mark.parametrize("name", [*ESTIMATORS, "retrace"])
def test_a_return_ends_before_steps_that_are_masked(name: str, flags: tuple) -> None:
    loss = first_number_loss().make_value_estimator(name, gamma=GAMMA)
    batch = make_batch(2, 6, dtype=torch.float64)
    batch["action_log_prob"] = torch.zeros(2, 6, dtype=torch.float64)
    for flag in ("done", "terminated"):
        batch["next", flag][:] = False
        if flag not in flags:
            batch["next"].pop(flag)
    alone = targets(loss, batch[1:, :4].clone())
    batch["collector", "mask"] = torch.ones(2, 6, dtype=torch.bool)
    batch["collector", "mask"][1, 4:] = False
    torch.testing.assert_close(targets(loss, batch)[1:, :4], alone)
    assert not batch["next", "done"].any()


def test_a_return_ends_before_masked_steps_of_the_dimension_called_time() -> None:
    loss = first_number_loss().make_value_estimator("td1", gamma=GAMMA)
    batch = make_batch(2, 6, dtype=torch.float64)
    batch["next", "done"][:], batch["next", "terminated"][:] = False, False
    ended = batch.clone()
    ended["next", "done"][1, 3] = True
    expected = targets(loss, ended)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    batch["collector", "mask"] = mask
    turned = batch.transpose(0, 1).contiguous()
    turned.names = ["time", None]
    torch.testing.assert_close(targets(loss, turned).T[mask], expected[mask])


def test_an_own_estimator_is_used_with_the_keys_of_the_loss() -> None:
    loss = first_number_loss()
    loss.set_keys(reward="gain", value="next_value")
    estimator = TD0Estimator(gamma=GAMMA, value_network=None)
    assert loss.make_value_estimator(estimator) is loss
    assert loss.value_estimator is estimator
    batch = make_batch(4, 3, dtype=torch.float64)
    expected = lambda_returns(batch, 0.0)
    batch.rename_key_(("next", "reward"), ("next", "gain"))
    torch.testing.assert_close(targets(loss, batch), expected, rtol=1e-5, atol=1e-6)


def test_the_default_is_one_step_with_the_discount_of_torchrl() -> None:
    loss, batch = first_number_loss(), make_batch(4, dtype=torch.float64)
    reward, value = batch["next", "reward"], batch["next", "observation"][..., :1]
    expected = reward + 0.99 * ~batch["next", "terminated"] * value
    torch.testing.assert_close(targets(loss, batch), expected.squeeze(-1), rtol=1e-5, atol=1e-6)


def test_the_default_estimator_is_named() -> None:
    assert MPOLoss.default_value_estimator == ValueEstimators.TD0
    loss = make_loss()
    loss.make_value_estimator(gamma=0.5)
    assert loss.value_type == ValueEstimators.TD0


@pytest.mark.parametrize("truncated", [True, False])
def test_only_termination_ends_the_return(truncated: bool) -> None:
    loss = first_number_loss().make_value_estimator(gamma=GAMMA)
    batch = make_batch(5, dtype=torch.float64)
    batch["next", "done"][:] = True
    batch["next", "terminated"][:] = not truncated
    value = batch["next", "observation"][:, 0]
    expected = batch["next", "reward"].squeeze(-1) + GAMMA * truncated * value
    torch.testing.assert_close(targets(loss, batch), expected, rtol=1e-5, atol=1e-6)


def test_without_a_terminated_flag_done_ends_the_return() -> None:
    loss = first_number_loss().make_value_estimator(gamma=GAMMA)
    batch = make_batch(8, dtype=torch.float64)
    del batch["next", "terminated"]
    continues = ~batch["next", "done"].squeeze(-1)
    value = batch["next", "observation"][:, 0]
    expected = batch["next", "reward"].squeeze(-1) + GAMMA * continues * value
    torch.testing.assert_close(targets(loss, batch), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["GAE", "VTrace", "MAGAE"])
def test_estimators_of_advantages_are_refused(name: str) -> None:
    with pytest.raises(NotImplementedError, match=r"not implemented for loss MPOLoss"):
        make_loss().make_value_estimator(getattr(ValueEstimators, name))


def test_the_discount_is_no_argument_of_the_loss() -> None:
    with pytest.raises(TypeError, match="gamma"):
        make_loss(gamma=0.99)


# -- n-step -------------------------------------------------------------------------------


def trajectories(num_envs: int, length: int) -> TensorDict:
    """Episodes that end in a termination after step 4 and in a time limit after step 8."""
    batch = make_batch(num_envs, length, dtype=torch.float64)
    step = torch.arange(length)
    terminated, truncated = (step == 4), (step == 8)
    for key, flag in (
        ("terminated", terminated),
        ("truncated", truncated),
        ("done", terminated | truncated),
    ):
        batch["next", key] = flag.expand(num_envs, length).unsqueeze(-1).clone()
    return batch


def n_step_returns(batch: TensorDict, n: int) -> Tensor:
    """Walks from each step to the end of its episode, ``n`` steps at most."""
    following = batch["next"]
    num_envs, length = batch.shape
    returns = torch.zeros(num_envs, length - n, dtype=torch.float64)
    for env in range(num_envs):
        for start in range(length - n):
            discount, gain = 1.0, 0.0
            for here in following[env, start : start + n].unbind(0):
                gain += discount * here["reward"].item()
                discount *= GAMMA
                if here["done"]:
                    break
            bootstrap = ~here["terminated"] * here["observation"][0]
            returns[env, start] = gain + discount * bootstrap
    return returns


def stored(batch: TensorDict, n: int, **kwargs: Any) -> TensorDict:
    """What a replay buffer holds of them; the last ``n`` steps wait for their future."""
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(100, ndim=batch.ndim),
        transform=MultiStepTransform(n, GAMMA, **kwargs),
    )
    buffer.extend(batch)
    return buffer[:]


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_n_step_targets_are_right_if_the_flags_move_with_the_state(n: int, num_envs: int) -> None:
    batch = trajectories(num_envs, 12)
    expected = n_step_returns(batch, n)
    loss = first_number_loss().make_value_estimator(gamma=GAMMA)
    found = targets(loss, stored(batch, n, done_keys=[]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_n_step_targets_bootstrap_from_terminal_states_if_the_flags_stay() -> None:
    # MultiStepTransform's default: steps 2 and 3 reach the terminal state unawares.
    batch = trajectories(1, 12)
    loss = first_number_loss().make_value_estimator(gamma=GAMMA)
    error = targets(loss, stored(batch, 3)) - n_step_returns(batch, 3)
    assert (error.abs() > 1e-4).nonzero().tolist() == [[0, 2], [0, 3]]


def test_n_step_rewards_of_environments_mix_if_they_are_flattened() -> None:
    # SACTrainer flattens what it stores: n-step data want their time dimension last.
    batch = trajectories(2, 12)
    for key in ("done", "terminated", "truncated"):
        batch["next", key].zero_()
    loss = first_number_loss().make_value_estimator(gamma=GAMMA)
    flat = targets(loss, stored(batch.reshape(-1), 3, done_keys=[]))
    as_one = n_step_returns(batch.reshape(1, -1), 3)
    torch.testing.assert_close(flat, as_one.squeeze(0), rtol=1e-5, atol=1e-6)
    apart = n_step_returns(batch, 3)
    torch.testing.assert_close(flat[:9], apart[0], rtol=1e-5, atol=1e-6)
    assert (flat[12:21] - apart[1]).abs().max() < 1e-5 < (flat[10] - apart[0, -1]).abs()


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
