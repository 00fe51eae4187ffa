"""MPOLoss stands where SACLoss stood: TorchRL's own trainer and scripts do not notice."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, TensorDictReplayBuffer
from torchrl.envs import EnvBase, GymEnv, RewardSum, StepCounter, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import HardUpdate, LossModule, SACLoss, SoftUpdate
from torchrl.trainers.algorithms import SACTrainer

from mpo_torchrl import MPOLoss
from tests.loss.builders import (
    loss_entries,
    make_actor,
    make_batch,
    make_critic,
    make_loss,
    seeded,
    total,
)

LOSSES: list[type[LossModule]] = [SACLoss, MPOLoss]


@pytest.fixture
def env() -> Iterator[EnvBase]:
    env = TransformedEnv(GymEnv("Pendulum-v1"))
    env.append_transform(RewardSum(in_keys=["reward"], out_keys=["reward_sum"]))
    env.append_transform(StepCounter(20))
    yield env
    env.close()


def sac_networks(env: EnvBase) -> tuple[ProbabilisticActor, ValueOperator]:
    """As in TorchRL's SAC example, smaller."""
    spec = env.action_spec
    body = nn.Sequential(
        MLP(in_features=3, out_features=2, num_cells=[16], activation_class=nn.ReLU),
        NormalParamExtractor(scale_mapping="biased_softplus_1.0", scale_lb=0.1),
    )
    actor = ProbabilisticActor(
        TensorDictModule(body, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=spec,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": spec.space.low, "high": spec.space.high, "tanh_loc": False},
        default_interaction_type=ExplorationType.RANDOM,
        return_log_prob=False,
    )
    value = MLP(in_features=4, out_features=1, num_cells=[16], activation_class=nn.ReLU)
    return actor, ValueOperator(value, in_keys=["observation", "action"])


def trainer_for(loss_class: type[LossModule], env: EnvBase, updater: Any) -> SACTrainer:
    actor, critic = sac_networks(env)
    loss = loss_class(actor, critic, num_qvalue_nets=2)
    loss.make_value_estimator(gamma=0.99)
    collector = Collector(
        env, actor, frames_per_batch=20, total_frames=80, auto_register_policy_transforms=False
    )
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(100), batch_size=8)
    return SACTrainer(
        collector=collector,
        total_frames=80,
        frame_skip=1,
        optim_steps_per_batch=3,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=1e-2),
        replay_buffer=buffer,
        target_net_updater=updater(loss),
        progress_bar=False,
    )


UPDATERS = {
    "soft": lambda loss: SoftUpdate(loss, tau=0.05),
    "hard": lambda loss: HardUpdate(loss, value_network_update_interval=1),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("updater", UPDATERS)
@pytest.mark.parametrize("loss_class", LOSSES)
def test_torchrl_s_sac_trainer_trains_every_parameter_of_either_loss(
    loss_class: type[LossModule], updater: str, env: EnvBase
) -> None:
    trainer = trainer_for(loss_class, env, UPDATERS[updater])
    loss = trainer.loss_module
    before = {name: p.detach().clone() for name, p in loss.named_parameters()}
    targets = {
        key: value.clone()
        for key, value in loss.state_dict().items()
        if key.startswith("target_") and isinstance(value, torch.Tensor) and value.ndim
    }
    collected = trainer.collector.policy  # what acts

    trainer.train()

    unmoved = [name for name, p in loss.named_parameters() if (p == before[name]).all()]
    assert unmoved == []
    state = loss.state_dict()
    assert all((state[key] != value).any() for key, value in targets.items())
    acting = dict(collected.named_parameters())
    for name, parameter in loss.actor_network.named_parameters():
        torch.testing.assert_close(acting[name], parameter)
    assert trainer._optim_count == 12


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_s_keys_reach_the_loss(env: EnvBase) -> None:
    loss = trainer_for(MPOLoss, env, UPDATERS["soft"]).loss_module
    keys = loss.tensor_keys
    assert (keys.reward, keys.done, keys.terminated, keys.action) == (
        "reward",
        "done",
        "terminated",
        "action",
    )


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_sums_the_losses_and_nothing_else(env: EnvBase) -> None:
    trainer = trainer_for(MPOLoss, env, UPDATERS["soft"])
    summed = [key for key in trainer.loss_module.out_keys if key.startswith("loss")]
    assert summed == ["loss_qvalue", "loss_temperature", "loss_actor", "loss_alpha"]


def test_a_target_updater_from_sac_s_days_moves_both_targets() -> None:
    loss = make_loss()
    names = SoftUpdate(loss, eps=0.995)._target_names
    assert names == ["target_actor_network_params", "target_qvalue_network_params"]


SHARED = ["actor_network", "qvalue_network", "loss_function", "reduction", "action_spec"]
SHARED += ["num_qvalue_nets", "delay_actor", "delay_qvalue", "separate_losses", "deactivate_vmap"]
SHARED += ["use_prioritized_weights", "scalar_output_mode"]


@pytest.mark.parametrize("name", SHARED)
def test_what_both_losses_take_has_the_same_name(name: str) -> None:
    assert name in inspect.signature(SACLoss).parameters
    assert name in inspect.signature(MPOLoss).parameters


@pytest.mark.parametrize("name", ["in_keys", "out_keys", "tensor_keys", "value_type"])
def test_what_others_read_off_a_loss_is_there(name: str) -> None:
    assert getattr(make_loss(), name)


def test_every_key_that_sac_accepts_is_accepted() -> None:
    accepted = set(SACLoss._AcceptedKeys.__dataclass_fields__)
    assert accepted <= set(MPOLoss._AcceptedKeys.__dataclass_fields__)
    names = {key: f"my_{key}" for key in accepted}
    loss = make_loss()
    loss.set_keys(**names)
    assert all(getattr(loss.tensor_keys, key) == name for key, name in names.items())


def test_one_batch_serves_both_losses() -> None:
    actor, critic = make_actor("tanh_normal"), make_critic()
    batch, reads = make_batch(6), []
    for loss_class in LOSSES:
        loss = loss_class(actor, critic, num_qvalue_nets=2)
        total(loss(batch)).backward()
        assert batch["td_error"].shape == (6,)
        reads.append(set(loss.in_keys))
    assert reads[1] - reads[0] == set()


def test_an_actor_that_returns_log_probabilities_will_do() -> None:
    template = make_actor("tanh_normal")
    actor = ProbabilisticActor(
        template[0],
        in_keys=["loc", "scale"],
        spec=template.spec["action"],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    assert set(loss_entries(MPOLoss(actor, make_critic())(make_batch(4)))) >= {"loss_actor"}


def test_the_exploration_that_surrounds_the_loss_changes_no_number() -> None:
    loss, batch = make_loss(), make_batch(4)
    expected = seeded(loss, batch.clone())
    for exploration in (ExplorationType.MODE, ExplorationType.RANDOM):
        with set_exploration_type(exploration):
            assert (seeded(loss, batch.clone()) == expected).all()


def test_a_replay_buffer_of_plain_tensordicts_feeds_the_loss() -> None:
    buffer = ReplayBuffer(storage=LazyTensorStorage(20), batch_size=5)
    buffer.extend(make_batch(20))
    assert total(make_loss()(buffer.sample())).isfinite()


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
