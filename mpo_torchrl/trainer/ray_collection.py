"""Collection on many machines: Ray actors that act with the newest weights, come what may.

TorchRL's :class:`~torchrl.collectors.distributed.RayCollector` makes the actors and takes their
batches as they come. Ray can restart an actor that died and repeat the batch it was at, but what
TorchRL set up in the actor afterwards is lost: its ``RayWeightSyncScheme`` never reaches the new
one, which would act with the weights of the run's first step for ever. Here collectors ask for the
weights themselves, before each batch; one that was restarted does as all the others do.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import socket
import sys
import uuid
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn
from torchrl.collectors import Collector
from torchrl.collectors.distributed import RayCollector
from torchrl.data import ReplayBuffer, TensorSpec
from torchrl.envs import EnvBase, Transform
from torchrl.envs.utils import ExplorationType

from mpo_torchrl.trainer.collection import NStepReturns, make_replay_buffer
from mpo_torchrl.trainer.config import MPOConfig
from mpo_torchrl.trainer.environment import make_training_env
from mpo_torchrl.trainer.seeding import seed_everything
from mpo_torchrl.trainer.settings import SettingError, setting

COLLECTOR = "collector"
"""Key of a batch: the index of the collector that it comes from."""


@dataclasses.dataclass(kw_only=True)
class RayConfig(MPOConfig):
    """The settings of a run on a Ray cluster: those of any run, and where it collects.

    Examples:
        >>> RayConfig(num_collectors=8).learner == MPOConfig()
        True
    """

    num_collectors: int = setting(
        2, "processes that collect, wherever the cluster has room", at_least=1
    )
    collector_cpus: float = setting(
        1.0,
        "CPUs that Ray sets aside for each collector; below 1 where environments mostly wait",
        above=0,
    )
    ray_address: str = setting(
        "", "the cluster: host:port of its head, auto on one of its machines; empty: this machine"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_length > 1:
            raise SettingError(
                "sequence_length must be 1 with recipes/mpo_ray.py, whose collectors bring their "
                f"steps in any order, got {self.sequence_length}."
            )

    @property
    def waiting_steps(self) -> int:
        """Collected steps whose n-step returns are open, of all collectors."""
        return self.num_collectors * super().waiting_steps

    @property
    def learner(self) -> MPOConfig:
        """The settings that a checkpoint needs: it is loaded without Ray, too."""
        names = [field.name for field in dataclasses.fields(MPOConfig)]
        return MPOConfig(**{name: getattr(self, name) for name in names})


def connect(config: RayConfig) -> None:
    """Join the cluster at ``ray_address``, or start Ray on this machine alone.

    Where Ray is connected already, that cluster is taken.

    Raises:
        SettingError: if Ray is missing, no cluster answers, or it has too few CPUs.
    """
    if find_spec("ray") is None:
        raise SettingError("recipes/mpo_ray.py needs ray: pip install 'mpo_torchrl[ray]'.")
    import ray

    if not ray.is_initialized():
        _check_address(config.ray_address)
        try:
            ray.init(
                # "local" starts anew, whatever RAY_ADDRESS says.
                address=config.ray_address or "local",
                include_dashboard=None if config.ray_address else False,
                logging_level="error",
            )
        except (ConnectionError, ValueError) as error:
            raise _no_cluster(config.ray_address) from error
    cpus = ray.cluster_resources().get("CPU", 0.0)
    wanted = config.num_collectors * config.collector_cpus
    if wanted > cpus:
        raise SettingError(
            f"num_collectors * collector_cpus must be <= the CPUs of the Ray cluster ({cpus:g}), "
            f"got {config.num_collectors} * {config.collector_cpus:g}; set one lower or let more "
            "machines join."
        )


def _check_address(address: str) -> None:
    """Whether anything listens there: Ray itself would try for minutes, then end the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # "auto", or what Ray says is no address
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise _no_cluster(address) from error


def _no_cluster(address: str) -> SettingError:
    return SettingError(
        f"ray_address must be that of a running Ray cluster, got {address!r} where none answers; "
        "'ray start --head' starts one, and says its address."
    )


class WarmUpPolicy(TensorDictModuleBase):
    """Uniformly random actions until :meth:`end_warm_up`, then those of the policy.

    Which of them is a buffer, so that it travels with the weights. A collector that counted its
    own random steps would begin anew with them whenever it is restarted.

    Args:
        policy (TensorDictModuleBase): reads ``observation``, writes ``action``.
        action_spec (TensorSpec): of the environments, ``[*B, A]``.
    """

    in_keys = ["observation"]
    out_keys = ["action"]

    warm_up: torch.Tensor

    def __init__(self, policy: TensorDictModuleBase, action_spec: TensorSpec) -> None:
        super().__init__()
        self.policy, self.action_spec = policy, action_spec
        self.register_buffer("warm_up", torch.tensor(True))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The TensorDict with ``action`` added."""
        if self.warm_up:
            return tensordict.set("action", self.action_spec.rand())
        return self.policy(tensordict)

    def end_warm_up(self) -> None:
        """Act with the policy from now on."""
        self.warm_up.fill_(False)


class PullingCollector(Collector):
    """What runs in an actor: a collector that fetches the newest weights before each batch.

    Args:
        *args: as for :class:`~torchrl.collectors.Collector`.

    Keyword Args:
        shelf (str): name of the actor that has the policy and its newest weights.
        seed (int): of the run; each collector draws from a stream of its own.
        worker_idx (int): index of the collector.
        **kwargs: as for :class:`~torchrl.collectors.Collector`.
    """

    def __init__(self, *args: Any, shelf: str, seed: int, worker_idx: int, **kwargs: Any) -> None:
        import ray

        self.index, self.shelf = worker_idx, ray.get_actor(shelf)
        entropy = [seed, worker_idx]
        if _restarted():
            # The same seed would lead through the same first states and noise once more.
            entropy.append(int.from_bytes(os.urandom(4), "little"))
            print(f"Collector {worker_idx} died and was restarted.", file=sys.stderr)
        seed_actions, seed_env = np.random.SeedSequence(entropy).generate_state(2) >> 1
        seed_everything(int(seed_actions))
        kwargs["policy"] = self._fetch("policy")
        super().__init__(*args, worker_idx=worker_idx, **kwargs)
        self.set_seed(int(seed_env))

    def __repr__(self) -> str:
        return f"collector {self.index}"  # what Ray shows before a line of the actor's output

    def next(self) -> TensorDictBase:
        """A batch ``[*B, T]`` collected with the newest weights, and the collector's index."""
        self.update_policy_weights_(self._fetch("weights"))
        batch = super().next()
        return batch.set(COLLECTOR, torch.full((*batch.batch_size, 1), self.index))

    def _fetch(self, name: str) -> Any:
        import ray

        (reference,) = ray.get(self.shelf.get.remote(name))
        return ray.get(reference)


class PublishingRayCollector(RayCollector):
    """The learner's end: publishes weights in one place, from which collectors fetch them.

    Args:
        *args: as for :class:`~torchrl.collectors.distributed.RayCollector`.

    Keyword Args:
        learner_policy (nn.Module): whose weights to publish.
        collector_kwargs (dict): as for :class:`PullingCollector`.
        **kwargs: as for :class:`~torchrl.collectors.distributed.RayCollector`.
    """

    def __init__(
        self, *args: Any, learner_policy: nn.Module, collector_kwargs: dict[str, Any], **kwargs: Any
    ) -> None:
        # What is large, or a handle, is none of an actor's arguments: Ray may have dropped those
        # from its object store when it has to restart the actor.
        name = f"shelf-{uuid.uuid4().hex}"
        self.learner_policy, self.shelf = learner_policy, _start_shelf(name)
        self._publish("policy", copy.deepcopy(learner_policy).cpu())
        with warnings.catch_warnings():  # TorchRL misses the policy that collectors get later
            warnings.simplefilter("ignore", UserWarning)
            super().__init__(
                *args,
                collector_class=PullingCollector,
                collector_kwargs={**collector_kwargs, "shelf": name},
                weight_sync_schemes={},  # none
                **kwargs,
            )
        self.update_policy_weights_()

    def _maybe_fallback_update(
        self, policy_or_weights: Any = None, *, model_id: str | None = None
    ) -> None:
        """Without a scheme TorchRL asks this method to bring the weights to the collectors."""
        self._publish("weights", TensorDict.from_module(self.learner_policy).data.cpu())

    def _publish(self, name: str, value: Any) -> None:
        import ray

        # In a list, Ray hands on the reference: the value goes once to each machine that asks.
        ray.get(self.shelf.put.remote(name, [ray.put(value)]))

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """End all actors."""
        import ray

        super().shutdown(*args, **kwargs)
        ray.kill(self.shelf)


def make_ray_collector(
    policy: WarmUpPolicy, config: RayConfig, make_env: Callable[[], EnvBase] | None = None
) -> RayCollector:
    """Endless batches of ``steps_per_batch`` transitions, as ``num_collectors`` actors bring them.

    An actor that dies is restarted, on another machine if need be, and begins its batch again:
    what is lost is the unfinished batch. Meanwhile the others go on. Before each batch an actor
    fetches the weights of the last ``update_policy_weights_()``.

    Args:
        policy (WarmUpPolicy): of the learner; collectors act with a copy on the CPU.
        config (RayConfig): the settings of the run.
        make_env (callable, optional): the environments of one collector; those of ``config``.

    Returns:
        RayCollector: batches ``[T]`` or ``[num_envs, T]`` that hold ``"collector"``, the index of
        the actor they come from, ``[..., 1]``.
    """
    return PublishingRayCollector(
        [make_env or partial(make_training_env, config)] * config.num_collectors,
        learner_policy=policy,
        frames_per_batch=config.batch_steps,
        total_frames=sys.maxsize,  # the loop that reads counts the steps
        exploration_type=ExplorationType.RANDOM,
        sync=False,
        collector_kwargs={
            "seed": config.seed,
            "track_traj_ids": False,
            "auto_register_policy_transforms": False,  # the policy has no memory to be reset
        },
        remote_configs={
            "num_cpus": config.collector_cpus,
            "max_restarts": -1,
            "max_task_retries": -1,
        },
    )


def _start_shelf(name: str) -> Any:
    """An actor that keeps references to the policy and to its newest weights."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Shelf:  # in here Ray sends its code, and its process need not import torch
        def __init__(self) -> None:
            self.references: dict[str, list[Any]] = {}

        def put(self, name: str, reference: list[Any]) -> None:
            self.references[name] = reference

        def get(self, name: str) -> list[Any]:
            return self.references[name]

    # Where the learner runs: what ends this actor has ended the run.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here)(Shelf)
    return actor.options(name=name).remote()


def _restarted() -> bool:
    """Whether this process is an actor's second one, or a later one."""
    import ray

    with warnings.catch_warnings():  # Ray warns of what it calls itself
        warnings.simplefilter("ignore", DeprecationWarning)
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def make_shared_replay_buffer(
    config: RayConfig, normalizer: nn.Module | None = None
) -> ReplayBuffer:
    """The replay buffer of a run, for batches of several collectors that come in any order."""
    buffer = make_replay_buffer(dataclasses.replace(config, n_step=1), normalizer)
    n_step_returns = [
        NStepReturns(config.n_step, config.gamma)
        for _ in range(config.num_collectors if config.n_step > 1 else 0)
    ]
    buffer.insert_transform(0, OfEachCollector(n_step_returns))
    return buffer


class OfEachCollector(Transform):
    """Takes the collector's index out of a batch, and applies what belongs to that collector.

    n-step returns continue from batch to batch; those of different collectors must not mix.

    Args:
        transforms (sequence of Transform): one for each collector, or none at all.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase | None:
        index = int(tensordict.get(COLLECTOR).flatten()[0])
        steps = tensordict.exclude(COLLECTOR)
        if not len(self.transforms):
            return steps
        transform: Any = self.transforms[index]
        return transform._inv_call(steps)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """What leaves the buffer passes unchanged."""
        return tensordict
