"""A plain TorchRL SAC loop, and how it becomes MPO: by its loss and the keys that are summed.

    python recipes/sac_to_mpo.py algorithm=sac
    python recipes/sac_to_mpo.py algorithm=mpo

Actor, critic, collector, replay buffer, target updater, optimizer and loop stay as they are. For
MPO at its best use recipes/mpo.py: the duals get a learning rate of their own there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer
from torchrl.envs import GymEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import LossModule, SACLoss, SoftUpdate

from mpo_torchrl import MPOLoss
from mpo_torchrl.trainer import SettingError
from mpo_torchrl.trainer.seeding import LAST_SEED
from mpo_torchrl.trainer.tool import option, require_within, run_tool


@dataclass
class Settings:
    """What can be set on the command line."""

    algorithm: str = option("mpo", "mpo or sac")
    seed: int = option(0, "fixes the networks, the environment and the actions")
    total_timesteps: int = option(10_000, "environment steps")
    learning_starts: int = option(1000, "steps with random actions before the first update")
    steps_per_batch: int = option(10, "environment steps between updates, and updates after them")
    hidden: int = option(256, "width of the two hidden layers")
    batch_size: int = option(256, "transitions in an update")


def make_sac(actor: ProbabilisticActor, qvalue: ValueOperator) -> tuple[LossModule, list[str]]:
    """SAC: the loss and the keys that are summed."""
    loss = SACLoss(actor, qvalue, num_qvalue_nets=2)
    loss_keys = ["loss_actor", "loss_qvalue", "loss_alpha"]
    return loss, loss_keys


def make_mpo(actor: ProbabilisticActor, qvalue: ValueOperator) -> tuple[LossModule, list[str]]:
    """MPO: the same modules, another loss, one more key."""
    loss = MPOLoss(actor, qvalue, num_qvalue_nets=2)
    loss_keys = ["loss_actor", "loss_qvalue", "loss_alpha", "loss_temperature"]
    return loss, loss_keys


LOSSES = {"sac": make_sac, "mpo": make_mpo}


def train(settings: Settings) -> float:
    """Train on Pendulum-v1; the return of an episode with the mean action."""
    if settings.algorithm not in LOSSES:
        raise SettingError(f"algorithm must be mpo or sac, got {settings.algorithm!r}.")
    require_within("seed", settings.seed, 0, LAST_SEED)
    for name in ("total_timesteps", "steps_per_batch", "hidden", "batch_size"):
        require_within(name, getattr(settings, name), 1)
    # Later than that nothing would be learned.
    require_within("learning_starts", settings.learning_starts, 0, settings.total_timesteps)
    torch.manual_seed(settings.seed)
    env = GymEnv("Pendulum-v1")
    env.set_seed(settings.seed)
    action_spec, cells = env.action_spec, [settings.hidden, settings.hidden]

    actor = ProbabilisticActor(
        TensorDictModule(
            nn.Sequential(
                MLP(3, 2, num_cells=cells, activation_class=nn.ReLU), NormalParamExtractor()
            ),
            in_keys=["observation"],
            out_keys=["loc", "scale"],
        ),
        in_keys=["loc", "scale"],
        spec=action_spec,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": action_spec.space.low, "high": action_spec.space.high},
        default_interaction_type=ExplorationType.RANDOM,
    )
    qvalue = ValueOperator(
        MLP(4, 1, num_cells=cells, activation_class=nn.ReLU), in_keys=["observation", "action"]
    )

    loss, loss_keys = LOSSES[settings.algorithm](actor, qvalue)  # everything else is the same
    loss.make_value_estimator(gamma=0.99)

    target_updater = SoftUpdate(loss, tau=0.005)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-4)
    replay_buffer = ReplayBuffer(
        storage=LazyTensorStorage(settings.total_timesteps), batch_size=settings.batch_size
    )
    collector = Collector(
        env,
        actor,
        frames_per_batch=settings.steps_per_batch,
        total_frames=settings.total_timesteps,
        init_random_frames=settings.learning_starts,
        auto_register_policy_transforms=False,
    )

    env_steps = 0
    for batch in collector:
        replay_buffer.extend(batch)
        env_steps += batch.numel()
        if env_steps < settings.learning_starts:
            continue
        for _ in range(batch.numel()):
            losses = loss(replay_buffer.sample())
            sum(losses[key] for key in loss_keys).backward()
            optimizer.step()
            optimizer.zero_grad()
            target_updater.step()
        collector.update_policy_weights_()
    collector.shutdown()

    evaluation_env = GymEnv("Pendulum-v1")
    evaluation_env.set_seed(settings.seed)
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        episode = evaluation_env.rollout(200, actor)
    return episode["next", "reward"].sum().item()


def main() -> None:
    """The program with the settings of the command line."""
    run_tool(Settings, lambda settings: print(f"mean_reward: {train(settings)}"), __doc__ or "")


if __name__ == "__main__":
    main()
