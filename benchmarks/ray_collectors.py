"""Frames a second of 1, 2 and 4 Ray collectors: ``python -m benchmarks.ray_collectors``.

A step of the environment takes 20 ms of waiting, as one of a robot or of a remote simulator does,
so that two CPUs are enough for four collectors. Weights are published after each batch, as in a
run; there are no updates.
"""

from __future__ import annotations

import time

import ray
from tensordict import TensorDictBase
from torchrl.envs import EnvBase, Transform, TransformedEnv

from mpo_torchrl.trainer import SamplingPolicy, make_env, make_loss, seed_everything
from mpo_torchrl.trainer.ray_collection import RayConfig, WarmUpPolicy, make_ray_collector

STEP_SECONDS = 0.02
BATCHES = 20  # of each collector
COLLECTORS = (1, 2, 4)


class Wait(Transform):
    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        time.sleep(STEP_SECONDS)
        return next_tensordict


def slow_env() -> EnvBase:
    return TransformedEnv(make_env("Pendulum-v1"), Wait())


def frames_per_second(num_collectors: int) -> float:
    config = RayConfig(num_collectors=num_collectors, steps_per_batch=25)
    seed_everything(config.seed)
    env = make_env(config.env)
    actor, _ = make_loss(env, config)
    policy = WarmUpPolicy(SamplingPolicy(actor), env.action_spec)
    policy.end_warm_up()
    collector = make_ray_collector(policy, config, slow_env)
    batches = iter(collector)
    running: set[int] = set()
    while len(running) < num_collectors:  # their processes take a while to come up
        running.add(int(next(batches)["collector"][0]))
    start = time.perf_counter()
    frames = 0
    for _ in range(BATCHES * num_collectors):
        frames += next(batches).numel()
        collector.update_policy_weights_()
    seconds = time.perf_counter() - start
    collector.shutdown()
    return frames / seconds


def main() -> None:
    ray.init(num_cpus=max(COLLECTORS), include_dashboard=False, log_to_driver=False)
    print("| collectors | frames/s | of what the environment allows |")
    print("| ---: | ---: | ---: |")
    for num_collectors in COLLECTORS:
        rate = frames_per_second(num_collectors)
        print(f"| {num_collectors} | {rate:.1f} | {rate * STEP_SECONDS / num_collectors:.0%} |")
    ray.shutdown()


if __name__ == "__main__":
    main()
