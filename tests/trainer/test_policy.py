from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type

from mpo_torchrl.modules import make_actor
from mpo_torchrl.trainer import MeanPolicy, ObservationNormalizer, SamplingPolicy, make_env

SPEC = Bounded(-2.0, 2.0, (1,))


@pytest.mark.parametrize("kind", ["gaussian", "tanh_normal"])
@pytest.mark.parametrize("batch", [(), (5,), (2, 5)])
def test_an_observation_gives_an_action(kind, batch):
    policy = MeanPolicy(make_actor(3, SPEC, policy=kind))
    assert policy(torch.zeros(*batch, 3)).shape == (*batch, 1)


def test_an_array_is_an_observation_too():
    policy = MeanPolicy(make_actor(3, SPEC))
    assert policy(torch.zeros(3, dtype=torch.float64).numpy()).shape == (1,)


def test_a_tensordict_gets_the_action_added():
    state = TensorDict(observation=torch.zeros(5, 3), batch_size=5)
    assert MeanPolicy(make_actor(3, SPEC))(state)["action"].shape == (5, 1)


def test_it_plays_in_an_environment():
    assert make_env("Pendulum-v1").rollout(3, MeanPolicy(make_actor(3, SPEC))).shape == (3,)


def test_the_same_observation_gives_the_same_action():
    policy, observation = MeanPolicy(make_actor(3, SPEC)), torch.randn(5, 3)
    torch.testing.assert_close(policy(observation), policy(observation), rtol=0, atol=0)


def test_it_leaves_the_random_state_alone():
    policy = MeanPolicy(make_actor(3, SPEC))
    before = torch.get_rng_state()
    policy(torch.zeros(3))
    assert torch.equal(before, torch.get_rng_state())


def test_the_action_stays_in_its_bounds():
    actor = make_actor(3, SPEC)
    with torch.no_grad():
        actor[0].module[0][-1].bias.fill_(50.0)
    assert MeanPolicy(actor)(torch.zeros(3)).item() == 2.0


# -- the policy that collects -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gaussian", "tanh_normal"])
@pytest.mark.parametrize("batch", [(), (5,), (40,)])
def test_it_samples_exactly_what_the_actor_samples(kind, batch):
    actor = make_actor(3, Bounded(-2.0, 2.0, (2,)), policy=kind)
    state = TensorDict(observation=torch.randn(*batch, 3), batch_size=batch)
    torch.manual_seed(1)
    with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        expected = actor(state.copy())["action"]
    torch.manual_seed(1)
    found = SamplingPolicy(actor)(state)["action"]
    assert torch.equal(found, expected)
    assert set(state.keys()) == {"observation", "action"}


def test_it_samples_whatever_the_mode_of_exploration():
    policy = SamplingPolicy(make_actor(3, SPEC))
    state = TensorDict(observation=torch.zeros(3))
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        actions = {policy(state)["action"].item() for _ in range(5)}
    assert len(actions) == 5


def test_it_follows_its_actor():
    actor = make_actor(3, SPEC)
    policy = SamplingPolicy(actor)
    with torch.no_grad():
        actor[0].module[0][-1].bias[0] = 50.0
    assert policy(TensorDict(observation=torch.zeros(3)))["action"] > 50.0


@pytest.mark.parametrize("kind", [MeanPolicy, SamplingPolicy])
def test_policies_see_normalized_observations_and_leave_the_statistics(kind):
    normalizer, actor = ObservationNormalizer(3), make_actor(3, SPEC)
    with torch.no_grad():  # let the first layers matter
        actor[0].module[0][-1].weight.mul_(100)
    normalizer.update(torch.randn(100, 3) * 5 + 20)
    before = {key: value.clone() for key, value in normalizer.state_dict().items()}
    observation = torch.randn(7, 3) * 5 + 20

    def act(policy, observation):
        torch.manual_seed(0)
        state = TensorDict(observation=observation, batch_size=7)
        action = policy(state)["action"]
        assert torch.equal(state["observation"], observation)  # as the environment gave it
        return action

    found = act(kind(actor, normalizer), observation)
    torch.testing.assert_close(found, act(kind(actor), normalizer(observation)))
    for key, value in normalizer.state_dict().items():
        assert torch.equal(value, before[key])


if __name__ == "__main__":
    pytest.main([__file__])
