"""A collector in the middle of its work, as plain values and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl import torchrl_logger
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, ParallelEnv, TransformedEnv
from torchrl.envs.batched_envs import BatchedEnvBase

from mpo_torchrl.trainer.adapter import WeightsOnlyAdapter


class CollectorAdapter(WeightsOnlyAdapter):
    """Keeps a collector in the middle of its work: frames, environments, what it acts on next.

    The state that TorchRL's collector gives away begins a new episode; this one goes on with the
    running one. Where the environment does not come back exactly (its simulator keeps a state
    beyond its episodes), a warning says so and a new episode begins.
    """

    adapter_id = "mpo_torchrl.collector"

    def read(self, component: Any) -> dict[str, Any]:
        """The collector's state, without the policy, which the loss owns."""
        return component if isinstance(component, dict) else collector_state(component)

    def write(self, component: Any, state: Mapping[str, Any]) -> None:
        """Bring the collector to the state."""
        load_collector_state(component, state)


def collector_state(collector: Collector) -> dict[str, Any]:
    """What a collector needs to go on, apart from its policy, as plain values and tensors."""
    state = dict(collector.state_dict())
    for name in ("policy_state_dict", "env_state_dict"):  # the loss has one, "envs" the other
        state.pop(name, None)
    state["envs"] = [env.state_dict() for env in _layers(collector.env)]
    policy = collector.policy  # a random one of TorchRL's is no module
    counters = dict(policy.named_buffers(recurse=False)) if isinstance(policy, nn.Module) else {}
    if counters:
        state["policy"] = {name: counter.clone() for name, counter in counters.items()}
    return {**state, "carrier": collector._carrier.clone().to_dict()}


def load_collector_state(collector: Collector, state: Mapping[str, Any]) -> None:
    """Bring a fresh collector to a state from :func:`collector_state`."""
    collector.load_state_dict(dict(state), strict=False)
    for name, counter in state.get("policy", {}).items():
        collector.policy.get_buffer(name).copy_(counter)
    layers = _layers(collector.env)
    for env, env_state in zip(layers, state["envs"], strict=True):
        env.load_state_dict(env_state)
        if isinstance(env, ParallelEnv) and env._use_buffers:
            # TorchRL 0.14 leaves the flags of the workers up, and the next step would not wait.
            env._wait_for_workers(range(env.num_workers))
    carrier = collector._carrier
    if same([env.state_dict() for env in layers], state["envs"]):
        collector._carrier = TensorDict(
            state["carrier"], batch_size=carrier.batch_size, device=carrier.device
        )
        return
    torchrl_logger.warning(
        "The environment did not come back to where it was: it keeps a state beyond its episodes. "
        "The run goes on with a new episode, and differs from one that was never interrupted."
    )
    collector.reset()


def _layers(env: EnvBase) -> list[EnvBase]:
    """The environments inside each other whose states are kept, the innermost first.

    A transformed environment gives away the state of its transforms alone.
    """
    if isinstance(env, TransformedEnv):
        return [*_layers(env.base_env), env]
    return [env] if isinstance(env, BatchedEnvBase) else []


def same(one: Any, other: Any) -> bool:
    """Whether nested mappings, sequences and tensors are equal, bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
