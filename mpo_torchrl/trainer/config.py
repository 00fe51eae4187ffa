"""The settings of a run, checked in one place.

:class:`MPOConfig` is flat: the same names serve the command line (``key=value``), a YAML file and
Python.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from mpo_torchrl.dual import ObjectiveTemperatures
from mpo_torchrl.trainer.seeding import LAST_SEED
from mpo_torchrl.trainer.settings import SettingError, check_name, check_values, setting

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has none of its own


class RunConfig:
    """What the settings of every kind of run have in common: names to rely on, and their checks."""

    env: str
    seed: int
    total_timesteps: int
    run_dir: str
    device: str
    num_threads: int
    progress_bar: bool
    logger: str
    num_envs: int
    env_processes: bool
    action_repeat: int
    frame_skip: int
    policy: str
    init_stddev: float
    min_stddev: float
    max_stddev: float
    learning_rate: float
    critic_lr: float
    dual_lr: float
    max_grad_norm: float
    steps_per_batch: int
    eval_every: int
    eval_episodes: int
    checkpoint_every: int
    keep_checkpoints: int
    resume: str
    # What runs on-policy do without:
    hidden_observation: Sequence[int] = ()
    sequence_length: int = 1
    recurrent: str = "none"
    state_size: int = 0

    @property
    def batch_steps(self) -> int:
        """``steps_per_batch``, rounded up to whole steps of all environments."""
        return -(-self.steps_per_batch // self.num_envs) * self.num_envs

    @property
    def random_steps(self) -> int:
        """Uniformly random steps before the policy acts, in whole collected batches."""
        return 0

    @property
    def bounds(self) -> dict[str, float]:
        """The bound of each of several rewards by its name, in their order; empty for one."""
        return {}

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Settings from a mapping; an unknown name raises and the nearest valid one is named."""
        for name in settings:
            check_name(name, cls)
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values, for a file."""
        return dataclasses.asdict(cast(Any, self))

    def _check_stddevs(self) -> None:
        if self.init_stddev <= self.min_stddev:
            raise SettingError(
                f"init_stddev must be > min_stddev ({self.min_stddev}), got {self.init_stddev}."
            )
        if self.max_stddev and self.max_stddev <= self.init_stddev:
            raise SettingError(
                f"max_stddev must be > init_stddev ({self.init_stddev}), or 0 for no limit, got "
                f"{self.max_stddev}."
            )


@dataclasses.dataclass(kw_only=True)
class MPOConfig(RunConfig):
    """Every setting of an MPO run on one environment.

    Construction checks each value alone, then those that must fit together; a :class:`SettingError`
    names the setting, what was found and what is valid. ``python recipes/mpo.py --help`` prints
    the table.

    Examples:
        >>> MPOConfig(env="Pendulum-v1", seed=1).learning_rate
        0.0003
        >>> MPOConfig(gamma=1.5)
        Traceback (most recent call last):
        ...
        mpo_torchrl.trainer.settings.SettingError: gamma must be a number >= 0 and <= 1, got 1.5.
    """

    # The run
    env: str = setting(
        "Pendulum-v1", "Gymnasium id of the environment, or dm_control/<domain>-<task>"
    )
    seed: int = setting(
        42, "seeds networks, environment, actions and replay", at_least=0, at_most=LAST_SEED
    )
    total_timesteps: int = setting(
        20_000, "steps of the whole run: actions taken, over all environments", at_least=1
    )
    run_dir: str = setting("", "folder of the results; empty: runs/<env>-<seed>-<time>")
    device: str = setting("cpu", "where networks and updates live: cpu, cuda, cuda:1, ...")
    num_threads: int = setting(
        0, "threads of one torch operation; 0 leaves torch's choice", at_least=0
    )
    compile: bool = setting(
        False, "compile the loss, for half a minute; pays in runs of 10,000 updates and more"
    )
    progress_bar: bool = setting(True, "show a progress bar")
    logger: str = setting(
        "csv",
        "what shows metrics beside progress.csv, which is always written",
        choices=("csv", "tensorboard", "wandb", "mlflow"),
    )
    # Environment
    num_envs: int = setting(1, "environments stepped together", at_least=1)
    env_processes: bool = setting(
        False, "step each environment in a process of its own; pays where a step takes over 1 ms"
    )
    action_repeat: int = setting(
        1, "steps of the environment for which an action is held, their rewards summed", at_least=1
    )
    frame_skip: int = setting(
        0,
        "steps of the simulation in one of the environment (Gymnasium's MuJoCo); 0: its own",
        at_least=0,
    )
    hidden_observation: list[int] = setting(
        [], "numbers of the observation, by place, that the agent does not see", at_least=0
    )
    reward_scale: float = setting(
        1.0, "factor of the rewards learned from; returns are shown without it", above=0
    )
    normalize_observation: bool = setting(
        False, "observations are shifted and scaled by their running mean and stddev"
    )
    # Networks
    hidden: int = setting(256, "width of the two hidden layers of actor and critics", at_least=1)
    actor_cells: list[int] = setting(
        [], "widths of the actor's hidden layers; []: two of hidden", at_least=1
    )
    critic_cells: list[int] = setting(
        [], "widths of a critic's hidden layers; []: two of hidden", at_least=1
    )
    critic_blocks: int = setting(
        0, "residual blocks (of BroNet) after a critic's hidden layers; 0: none", at_least=0
    )
    recurrent: str = setting(
        "none",
        "what actor and critics remember observations with, before their hidden layers",
        choices=("none", "gru", "lstm"),
    )
    state_size: int = setting(64, "size of what a recurrent network remembers", at_least=1)
    layer_norm: bool = setting(True, "LayerNorm and tanh after the first layer of every network")
    num_critics: int = setting(2, "critics whose minimum scores an action", at_least=1)
    critic: str = setting(
        "scalar",
        "what critics predict: the return, or its distribution in one of four forms",
        choices=("scalar", "c51", "two_hot", "quantile", "mixture"),
    )
    vmin: float = setting(-1600.0, "smallest return that c51 and two_hot can tell")
    vmax: float = setting(1600.0, "largest return that c51 and two_hot can tell")
    num_atoms: int = setting(101, "returns between the two, for c51 and two_hot", at_least=2)
    num_quantiles: int = setting(32, "quantiles of the critic quantile", at_least=1)
    num_components: int = setting(5, "Gaussians of the critic mixture", at_least=1)
    init_value_stddev: float = setting(
        100.0, "stddev of these Gaussians at the start; of the size of the returns", above=0
    )
    policy: str = setting(
        "gaussian",
        "gaussian is unsquashed, tanh_normal squashed; categorical is for discrete actions",
        choices=("gaussian", "tanh_normal", "categorical"),
    )
    init_stddev: float = setting(
        0.5, "stddev of the policy at the start, in halves of the action range", above=0
    )
    min_stddev: float = setting(0.01, "least stddev of the policy, in the same unit", above=0)
    max_stddev: float = setting(
        0.0, "greatest stddev of the policy, in the same unit; 0: no limit", at_least=0
    )
    # Learning
    learning_rate: float = setting(3e-4, "Adam, actor and critics", above=0)
    critic_lr: float = setting(
        0.0, "Adam, critics, if they shall have a rate of their own; 0: learning_rate", at_least=0
    )
    dual_lr: float = setting(1e-2, "Adam, temperatures and KL multipliers", above=0)
    max_grad_norm: float = setting(
        0.0,
        "gradients of the actor and of the critics are each clipped to this norm; 0: never",
        at_least=0,
    )
    batch_size: int = setting(256, "transitions in one update", at_least=1)
    buffer_size: int = setting(1_000_000, "transitions kept for replay", at_least=1)
    learning_starts: int = setting(
        1000, "uniformly random steps before the first update", at_least=0
    )
    steps_per_batch: int = setting(
        10,
        "steps of all environments collected between two rounds of updates, at least one of each",
        at_least=1,
    )
    utd_ratio: float = setting(1.0, "updates per environment step", above=0)
    policy_delay: int = setting(
        1, "of so many updates one is of all parts, the others of the critics alone", at_least=1
    )
    gamma: float = setting(0.99, "discount", at_least=0, at_most=1)
    n_step: int = setting(1, "rewards in a target before the critic's value follows", at_least=1)
    sequence_length: int = setting(
        1, "consecutive steps of an episode that are replayed together; 1: transitions", at_least=1
    )
    burn_in: int = setting(
        0,
        "of these, steps at the start that only bring recurrent networks into their state",
        at_least=0,
    )
    value_estimator: str = setting(
        "td0",
        "targets from one reward, or from all rewards that follow in a sequence",
        choices=("td0", "td_lambda", "retrace"),
    )
    lmbda: float = setting(
        0.95, "how far td_lambda and retrace trust longer returns", at_least=0, at_most=1
    )
    tau: float = setting(0.005, "Polyak step of the targets after each update", above=0, at_most=1)
    target_period: int = setting(
        0, "copy the networks into the targets every so many updates; 0: Polyak steps", at_least=0
    )
    delay_actor: bool = setting(True, "draw the E-step's actions from a target of the actor")
    delay_qvalue: bool = setting(True, "bootstrap from targets of the critics")
    # MPO
    n_action_samples: int = setting(20, "actions per state in the E-step (N)", at_least=1)
    n_bootstrap_samples: int = setting(
        1, "actions per next state in the critic's target", at_least=1
    )
    e_step_critic: str = setting(
        "online",
        "critics that score the samples; next: at the next state",
        choices=("online", "target", "next"),
    )
    epsilon: float = setting(0.1, "E-step bound: KL of the weights, nats", above=0)
    epsilons: list[float] = setting(
        [],
        "E-step bounds of several rewards, one each: the preference between them; []: one reward",
        above=0,
    )
    objectives: list[str] = setting(
        [], "names of these rewards, in their order; []: reward0, reward1, ..."
    )
    epsilon_mean: float = setting(
        0.1, "M-step bound: KL of the mean, nats per action dimension", above=0
    )
    epsilon_stddev: float = setting(
        5e-3, "M-step bound: KL of the stddev, nats per action dimension", above=0
    )
    epsilon_policy: float = setting(
        0.01, "M-step bound of a categorical policy: its KL, nats", above=0
    )
    per_dim_constraining: bool = setting(
        True, "bound the KL of each action dimension; false: of all together"
    )
    epsilon_penalty: float = setting(
        0.001, "bound of the action penalty (gaussian policy only), nats", above=0
    )
    temperature: str = setting(
        "learned",
        "the E-step's temperature; exact: solved for in every batch",
        choices=("learned", "exact"),
    )
    init_temperature: float = setting(1.0, "E-step temperature at the start", above=0)
    init_penalty_temperature: float = setting(
        1.0, "temperature of the action penalty at the start", above=0
    )
    init_alpha_mean: float = setting(1.0, "multiplier of the mean's KL at the start", above=0)
    init_alpha_stddev: float = setting(1.0, "multiplier of the stddev's KL at the start", above=0)
    init_alpha_policy: float = setting(
        1.0, "multiplier of a categorical policy's KL at the start", above=0
    )
    parametrization: str = setting(
        "softplus", "how multipliers stay positive", choices=("softplus", "exp")
    )
    # Evaluation
    eval_every: int = setting(
        2000, "environment steps between two evaluations, each with checkpoint.zip", at_least=1
    )
    eval_episodes: int = setting(
        10, "episodes of one evaluation, played with the mean action", at_least=1
    )

    # Going on after a stop
    checkpoint_every: int = setting(
        10_000, "environment steps between two states to resume from", at_least=1
    )
    keep_checkpoints: int = setting(2, "newest states to resume from that are kept", at_least=1)
    resume: str = setting(
        "auto",
        "auto continues the run in run_dir if there is one; must insists; never starts afresh",
        choices=("auto", "must", "never"),
    )

    def __post_init__(self) -> None:
        check_values(self)
        if self.total_timesteps < self.random_steps:
            raise SettingError(
                f"total_timesteps must be >= learning_starts ({self.random_steps} in whole "
                f"batches), or no update ever happens, got {self.total_timesteps}."
            )
        if self.buffer_size < self.batch_size:
            raise SettingError(
                f"buffer_size must be >= batch_size ({self.batch_size}), got {self.buffer_size}."
            )
        self._check_stddevs()
        if not (self.delay_actor or self.delay_qvalue):
            raise SettingError("delay_actor or delay_qvalue must be true: some target has to move.")
        if self.policy == "categorical" and self.temperature == "exact":
            raise SettingError("temperature must be learned with policy=categorical, got exact.")
        if self.policy == "categorical" and self.critic != "scalar":
            raise SettingError(f"critic must be scalar with policy=categorical, got {self.critic}.")
        if self.policy == "categorical" and self.e_step_critic == "next":
            raise SettingError(
                "e_step_critic must be online or target with policy=categorical, got next."
            )
        if self.random_steps - self.waiting_steps < 1 < self.n_step:
            raise SettingError(
                f"learning_starts must be > n_step * num_envs ({self.waiting_steps}), whose "
                f"rewards are not all known at once, got {self.learning_starts}."
            )
        if self.epsilons or self.objectives:
            self._check_objectives()
        self._check_sequences()
        if self.vmax <= self.vmin:
            raise SettingError(f"vmax must be > vmin ({self.vmin}), got {self.vmax}.")
        updates = self.utd_ratio * self.batch_steps
        if not math.isclose(updates, max(1, round(updates))):
            raise SettingError(
                f"utd_ratio * {self.batch_steps} steps collected at once must be a whole number of "
                f"updates >= 1, got utd_ratio {self.utd_ratio}; change it or steps_per_batch."
            )
        if self.updates_per_batch % self.policy_delay:
            raise SettingError(
                f"policy_delay must divide the {self.updates_per_batch} updates between two "
                f"collected batches, got {self.policy_delay}; change it, utd_ratio or "
                "steps_per_batch."
            )

    def _check_objectives(self) -> None:
        if len(self.epsilons) < 2:
            raise SettingError(
                "epsilons must have a bound for each of two rewards or more, got "
                f"{self.epsilons}; one reward is bounded by epsilon."
            )
        if self.objectives and len(self.objectives) != len(self.epsilons):
            raise SettingError(
                f"objectives must name each of the {len(self.epsilons)} rewards that epsilons "
                f"bounds, got {self.objectives}."
            )
        taken: set[str] = set()
        for name in self.objectives:
            if not name.isidentifier() or name in taken or hasattr(ObjectiveTemperatures, name):
                raise SettingError(
                    "objectives must be different names of letters, digits and underscores, not "
                    f"those of PyTorch's modules, got {name!r} in {self.objectives}."
                )
            taken.add(name)
        needed = {
            "critic": "scalar",
            "temperature": "learned",
            "value_estimator": "td0",
            "recurrent": "none",
        }
        if self.policy == "categorical":
            raise SettingError("policy must be gaussian or tanh_normal with epsilons.")
        for setting_name, value in needed.items():
            if getattr(self, setting_name) != value:
                raise SettingError(
                    f"{setting_name} must be {value} with epsilons, got "
                    f"{getattr(self, setting_name)}."
                )

    @property
    def bounds(self) -> dict[str, float]:
        """The bound of each of several rewards by its name, in their order; empty for one."""
        names = self.objectives or [f"reward{index}" for index in range(len(self.epsilons))]
        return dict(zip(names, self.epsilons, strict=True))

    def _check_sequences(self) -> None:
        length = self.sequence_length
        if self.batch_size % length:
            raise SettingError(
                f"batch_size must be a multiple of sequence_length ({length}), got "
                f"{self.batch_size}."
            )
        if length > 1 and self.n_step > 1:
            raise SettingError(
                f"n_step must be 1 with sequence_length={length}, got {self.n_step}; "
                "value_estimator=td_lambda looks further ahead in sequences."
            )
        if length == 1 and self.value_estimator != "td0":
            raise SettingError(
                f"sequence_length must be > 1 with value_estimator={self.value_estimator}, got 1."
            )
        if self.recurrent != "none" and length == 1:
            raise SettingError(
                f"sequence_length must be > 1 with recurrent={self.recurrent}, got 1."
            )
        if self.recurrent != "none" and self.policy == "categorical":
            raise SettingError(
                f"recurrent must be none with policy=categorical, got {self.recurrent}."
            )
        if self.burn_in and (self.recurrent == "none" or self.burn_in >= length):
            raise SettingError(
                f"burn_in must be < sequence_length ({length}), and 0 with recurrent=none, got "
                f"{self.burn_in} with recurrent={self.recurrent}."
            )
        if self.critic != "scalar" and self.value_estimator != "td0":
            raise SettingError(
                f"value_estimator must be td0 with critic={self.critic}, got "
                f"{self.value_estimator}."
            )
        if self.policy == "categorical" and self.value_estimator == "retrace":
            raise SettingError(
                "value_estimator must be td0 or td_lambda with policy=categorical, got retrace."
            )

    @property
    def updates_per_batch(self) -> int:
        """Updates after each collected batch."""
        return round(self.utd_ratio * self.batch_steps)

    @property
    def random_steps(self) -> int:
        """``learning_starts``, rounded up to whole collected batches."""
        return -(-self.learning_starts // self.batch_steps) * self.batch_steps

    @property
    def waiting_steps(self) -> int:
        """Collected steps whose n-step returns are open, so that replay does not have them yet."""
        return self.n_step * self.num_envs if self.n_step > 1 else 0
