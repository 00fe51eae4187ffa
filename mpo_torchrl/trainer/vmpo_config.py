"""The settings of a V-MPO run."""

from __future__ import annotations

import dataclasses
from typing import Any

from mpo_torchrl.trainer.config import MPOConfig, RunConfig
from mpo_torchrl.trainer.settings import SettingError, check_values, setting

_OF_MPO = {field.name: field for field in dataclasses.fields(MPOConfig)}


def _as_in_mpo(name: str, *default: Any) -> Any:
    """A setting that :class:`MPOConfig` has too, with another default if one is given."""
    metadata = dict(_OF_MPO[name].metadata)
    value = default[0] if default else metadata.pop("default")
    metadata.pop("default", None)
    return setting(value, metadata.pop("meaning"), **metadata)


@dataclasses.dataclass(kw_only=True)
class VMPOConfig(RunConfig):
    """Every setting of a V-MPO run on one environment.

    As :class:`~mpo_torchrl.trainer.MPOConfig`; what has the same name means the same.
    ``python recipes/vmpo.py --help`` prints the table.

    Examples:
        >>> VMPOConfig(env="CartPole-v1", seed=1).top_k_fraction
        0.5
        >>> VMPOConfig(top_k_fraction=0)
        Traceback (most recent call last):
        ...
        mpo_torchrl.trainer.settings.SettingError: top_k_fraction must be a number > 0 and <= 1, got 0.0.
    """  # noqa: E501

    # The run
    env: str = _as_in_mpo("env", "CartPole-v1")
    seed: int = _as_in_mpo("seed")
    total_timesteps: int = setting(
        200_000, "steps of the whole run, rounded up to whole batches", at_least=1
    )
    run_dir: str = _as_in_mpo("run_dir")
    device: str = _as_in_mpo("device")
    num_threads: int = _as_in_mpo("num_threads")
    progress_bar: bool = _as_in_mpo("progress_bar")
    logger: str = _as_in_mpo("logger")
    # Environment
    num_envs: int = _as_in_mpo("num_envs", 8)
    env_processes: bool = _as_in_mpo("env_processes")
    action_repeat: int = _as_in_mpo("action_repeat")
    frame_skip: int = _as_in_mpo("frame_skip")
    normalize_reward: bool = setting(
        True, "rewards learned from are divided by the running stddev of the discounted return"
    )
    # Networks
    hidden: int = _as_in_mpo("hidden", 64)
    actor_cells: list[int] = _as_in_mpo("actor_cells")
    critic_cells: list[int] = _as_in_mpo("critic_cells")
    layer_norm: bool = _as_in_mpo("layer_norm")
    policy: str = setting(
        "auto",
        "auto: categorical for discrete actions, else gaussian",
        choices=("auto", "gaussian", "tanh_normal", "categorical"),
    )
    init_stddev: float = _as_in_mpo("init_stddev")
    min_stddev: float = _as_in_mpo("min_stddev")
    max_stddev: float = _as_in_mpo("max_stddev")
    # Learning
    learning_rate: float = _as_in_mpo("learning_rate", 1e-3)
    critic_lr: float = _as_in_mpo("critic_lr")
    dual_lr: float = _as_in_mpo("dual_lr")
    max_grad_norm: float = _as_in_mpo("max_grad_norm")
    steps_per_batch: int = setting(
        2048, "steps of all environments collected with one policy", at_least=1
    )
    batch_size: int = setting(512, "steps in one update, out of which the best count", at_least=2)
    epochs: int = setting(10, "how often each step is learned from", at_least=1)
    gamma: float = _as_in_mpo("gamma")
    gae_lambda: float = setting(0.95, "lambda of the advantage estimate", at_least=0, at_most=1)
    # V-MPO
    top_k_fraction: float = setting(
        0.5, "share of a batch, the best, that is learned from", above=0, at_most=1
    )
    epsilon: float = _as_in_mpo("epsilon")
    epsilon_mean: float = _as_in_mpo("epsilon_mean", 0.02)
    epsilon_stddev: float = _as_in_mpo("epsilon_stddev", 1e-3)
    epsilon_policy: float = _as_in_mpo("epsilon_policy", 0.02)
    per_dim_constraining: bool = _as_in_mpo("per_dim_constraining")
    init_temperature: float = _as_in_mpo("init_temperature")
    init_alpha_mean: float = _as_in_mpo("init_alpha_mean")
    init_alpha_stddev: float = _as_in_mpo("init_alpha_stddev")
    init_alpha_policy: float = _as_in_mpo("init_alpha_policy")
    parametrization: str = _as_in_mpo("parametrization")
    # Evaluation
    eval_every: int = _as_in_mpo("eval_every", 20_000)
    eval_episodes: int = _as_in_mpo("eval_episodes", 20)
    # Going on after a stop
    checkpoint_every: int = _as_in_mpo("checkpoint_every", 50_000)
    keep_checkpoints: int = _as_in_mpo("keep_checkpoints")
    resume: str = _as_in_mpo("resume")

    def __post_init__(self) -> None:
        check_values(self)
        if self.batch_steps % self.batch_size:
            raise SettingError(
                f"batch_size must divide the {self.batch_steps} steps collected at once, got "
                f"{self.batch_size}; change it or steps_per_batch."
            )
        if self.top_k_fraction * self.batch_size < 1:
            raise SettingError(
                f"top_k_fraction * batch_size ({self.batch_size}) must be at least 1 step, got "
                f"top_k_fraction {self.top_k_fraction}."
            )
        self._check_stddevs()
