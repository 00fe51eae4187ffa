"""The recipe on a Ray cluster of two machines, one of whose collectors is killed."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from tensordict.nn import TensorDictModule
from torch import nn

from mpo_torchrl.trainer import MPOTrainer, make_env
from mpo_torchrl.trainer.ray_collection import (
    RayConfig,
    WarmUpPolicy,
    connect,
    make_ray_collector,
)
from mpo_torchrl.trainer.settings import SettingError
from recipes import mpo_ray
from tests.trainer.small import SETTINGS, same_figures


def small_config(**settings) -> RayConfig:
    return RayConfig(**{**SETTINGS, "num_collectors": 2, **settings})


@pytest.fixture(scope="module")
def cluster():
    """Two machines with a CPU each, as far as Ray can tell."""
    machines = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    machines.add_node(num_cpus=1)
    ray.init(address=machines.address, log_to_driver=False, logging_level="error")
    yield machines
    ray.shutdown()
    machines.shutdown()


def pid(actor) -> int:
    return ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))


def machine(actor) -> str:
    return ray.get(actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))


@pytest.fixture(scope="module")
def collected(cluster):
    """Batches before and after the policy took over, and after one of two collectors was killed.

    The policy is a constant, so that its actions tell which weights a collector has.
    """
    linear = nn.Linear(3, 1)
    nn.init.zeros_(linear.weight)
    policy = WarmUpPolicy(
        TensorDictModule(linear, ["observation"], ["action"]), make_env("Pendulum-v1").action_spec
    )
    collector = make_ray_collector(policy, small_config())
    batches = iter(collector)

    def read(rounds: int) -> list:
        """Batches until each collector brought so many."""
        found: list = []
        while any(sum(b["collector"][0] == i for b in found) < rounds for i in (0, 1)):
            found.append(next(batches))
        return found

    def act(value: float) -> None:
        nn.init.constant_(linear.bias, value)
        collector.update_policy_weights_()

    warm_up = read(1)
    policy.end_warm_up()
    act(0.5)
    read(1)  # these were on their way
    acting = read(1)
    actors = collector.remote_collectors
    machines, victim = {machine(actor) for actor in actors}, pid(actors[0])
    os.kill(victim, signal.SIGKILL)
    act(-0.5)
    meanwhile = read(1)
    restarted = read(2)[-1:] + [b for b in read(1) if b["collector"][0] == 0]
    pids = victim, pid(actors[0])
    collector.shutdown()
    return SimpleNamespace(**locals())


def test_collectors_are_on_both_machines(collected):
    assert len(collected.machines) == 2


def test_collectors_begin_with_random_actions_of_their_own(collected):
    actions = torch.cat([batch["action"] for batch in collected.warm_up])
    assert actions.unique().numel() == actions.numel()


def test_collectors_act_with_the_weights_that_were_published(collected):
    assert all((batch["action"] == 0.5).all() for batch in collected.acting)


def test_a_killed_collector_is_another_process_afterwards(collected):
    before, after = collected.pids
    assert before != after


def test_a_restarted_collector_acts_with_the_newest_weights_and_not_at_random(collected):
    assert all((batch["action"] == -0.5).all() for batch in collected.restarted)


def test_no_batch_of_a_killed_collector_is_cut_short(collected):
    assert {batch.shape for batch in collected.meanwhile} == {torch.Size([10])}


@pytest.fixture(scope="module")
def run(collected, tmp_path_factory):
    """A run of the recipe during which a collector is killed."""
    folder = tmp_path_factory.mktemp("run")
    config = small_config(total_timesteps=300, n_step=3, run_dir=str(folder))
    seen = SimpleNamespace(folder=folder, config=config, batches=0)

    def make_and_note(*args):
        seen.collector = make_ray_collector(*args)
        return seen.collector

    def kill_in_the_middle(*args):
        seen.batches += 1
        if seen.batches == 10:
            seen.killed = pid(seen.collector.remote_collectors[0])
            os.kill(seen.killed, signal.SIGKILL)
        return transitions(*args)

    transitions = mpo_ray.transitions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mpo_ray, "make_ray_collector", make_and_note)
        patch.setattr(mpo_ray, "transitions", kill_in_the_middle)
        seen.metrics = mpo_ray.train(config)
    return seen


def test_training_goes_on_to_its_end_when_a_collector_is_killed(run):
    assert run.killed
    assert (run.metrics["env_steps"], run.metrics["updates"]) == (300, 270)
    assert run.batches == 30


def test_the_checkpoint_is_loaded_as_that_of_any_run(run):
    trainer = MPOTrainer.load(run.folder / "checkpoint.zip")
    assert (trainer.collected_frames, trainer.config.n_step) == (300, 3)


def test_a_finished_run_ends_again_with_the_same_figures(run):
    assert same_figures(mpo_ray.train(run.config), run.metrics)


def test_more_collectors_than_cpus_are_refused(cluster):
    with pytest.raises(SettingError, match=r"<= the CPUs of the Ray cluster \(2\), got 3 \* 1;"):
        connect(small_config(num_collectors=3))


if __name__ == "__main__":
    pytest.main([__file__])
