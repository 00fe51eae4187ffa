"""Runs with networks that remember: what is collected, played, and hidden."""

from __future__ import annotations

import gymnasium
import pytest
import torch

from mpo_torchrl.memory import Memory
from mpo_torchrl.trainer import (
    MeanPolicy,
    SettingError,
    make_collector,
    make_env,
    make_evaluation_env,
    make_loss,
    make_training_env,
)
from mpo_torchrl.trainer.environment import env_settings
from tests.trainer.small import small_config
from tests.trainer.test_n_step import Chain

SETTINGS = {"recurrent": "gru", "state_size": 6, "sequence_length": 4}
KINDS = pytest.mark.parametrize("recurrent", ["gru", "lstm"])


@pytest.fixture(autouse=True)
def register():
    gymnasium.register("mpo/Chain-v0", Chain, disable_env_checker=True, order_enforce=False)
    yield
    del gymnasium.registry["mpo/Chain-v0"]


def collected(config, num_batches: int = 4):
    """An actor, and what was collected with it, ``[envs, T]``."""
    torch.manual_seed(0)
    env = make_training_env(config)
    env.set_seed(0)
    actor, _ = make_loss(env, config)
    collector = make_collector(env, actor, config)
    batches = [batch.clone() for batch, _ in zip(collector, range(num_batches), strict=False)]
    collector.shutdown()
    return actor, torch.cat([batch.reshape(config.num_envs, -1) for batch in batches], dim=1)


@KINDS
@pytest.mark.parametrize("num_envs", [1, 2])
def test_the_stored_state_is_what_the_same_parameters_remember_again(recurrent, num_envs):
    # Actions are random for a while, and the policy remembers all the same.
    settings = {**SETTINGS, "recurrent": recurrent, "env": "mpo/Chain-v0", "learning_starts": 20}
    actor, batch = collected(small_config(**settings, num_envs=num_envs))
    assert batch["is_init"].sum() > num_envs
    memory = Memory([actor[0].module[0]], stored=True)
    for t in range(1, batch.shape[1]):
        again = memory.burn_in(batch[:, :t])
        for key in memory.state_keys:
            goes_on = ~batch["is_init"][:, t, 0]
            torch.testing.assert_close(again[key][goes_on], batch[key][:, t][goes_on])
            assert not batch[key][:, t][~goes_on].any()


@KINDS
def test_a_policy_at_play_remembers(recurrent):
    config = small_config(**{**SETTINGS, "recurrent": recurrent, "eval_episodes": 3})
    env = make_evaluation_env(config)
    actor, _ = make_loss(env, config)
    played = env.rollout(12, MeanPolicy(actor))
    memory = Memory([actor[0].module[0]], stored=True)
    features = memory(played, "")["actor_features"]
    torch.testing.assert_close(played["action"], actor[0].module[1].module(features)[0])
    assert not torch.isclose(features[:, 0], features[:, -1]).all()


def test_an_observation_alone_is_not_enough_for_a_policy_that_remembers():
    config = small_config(**SETTINGS)
    actor, _ = make_loss(make_training_env(config), config)
    with pytest.raises(TypeError, match="needs the TensorDict of an environment, .*'actor_state'"):
        MeanPolicy(actor)(torch.zeros(3))


@pytest.mark.parametrize("num_envs", [1, 2])
def test_numbers_are_hidden_from_every_step(num_envs):
    whole, part = (
        make_env("Pendulum-v1", num_envs=num_envs, hidden=hidden) for hidden in ([], [2])
    )
    assert part.observation_spec["observation"].shape[-1] == 2
    rollouts = []
    for env in (whole, part):
        env.set_seed(0)
        torch.manual_seed(0)
        rollouts.append(env.rollout(5))
    for key in ("observation", ("next", "observation")):
        assert torch.equal(rollouts[0][key][..., :2], rollouts[1][key])


@pytest.mark.parametrize("hidden", [[3], [0, 1, 2], [0, 0, 7]])
def test_what_cannot_be_hidden_is_named(hidden):
    with pytest.raises(SettingError, match="of the 3 numbers that env 'Pendulum-v1' shows"):
        make_env("Pendulum-v1", hidden=hidden)


def test_an_environment_does_not_draw_from_the_randomness_of_a_run():
    before = torch.get_rng_state()
    make_env("Pendulum-v1", **env_settings(small_config(**SETTINGS)))
    assert torch.equal(torch.get_rng_state(), before)


if __name__ == "__main__":
    pytest.main([__file__])
