from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded

from mpo_torchrl.modules import make_actor
from mpo_torchrl.trainer import MeanPolicy, make_env

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


if __name__ == "__main__":
    pytest.main([__file__])
