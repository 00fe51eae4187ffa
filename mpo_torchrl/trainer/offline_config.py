"""The settings of a run on a data set."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mpo_torchrl.trainer.config import MPOConfig
from mpo_torchrl.trainer.settings import SettingError, setting


@dataclasses.dataclass(kw_only=True)
class OfflineConfig(MPOConfig):
    """Every setting of an MPO run that learns from a data set and takes no step of its own.

    As :class:`~mpo_torchrl.trainer.MPOConfig`; what has the same name means the same, except that
    an update is what counts as a step. ``python recipes/offline.py --help`` prints the table.

    Examples:
        >>> OfflineConfig(dataset="pendulum/medium-v0").temperature
        'learned'
        >>> OfflineConfig(dataset="pendulum/medium-v0", num_envs=4)
        Traceback (most recent call last):
        ...
        mpo_torchrl.trainer.settings.SettingError: num_envs is not used by a run on a data set; leave it out.
    """  # noqa: E501

    UNUSED: ClassVar[tuple[str, ...]] = (
        *("num_envs", "env_processes", "buffer_size", "learning_starts", "steps_per_batch"),
        *("utd_ratio", "policy_delay", "n_step", "sequence_length", "value_estimator", "lmbda"),
        *("recurrent", "state_size", "burn_in", "hidden_observation", "action_repeat"),
        # Actions of the data are inside their space: nothing has to be kept there by a penalty.
        *("epsilon_penalty", "init_penalty_temperature"),
        *("epsilon_policy", "init_alpha_policy", "epsilons", "objectives"),
    )
    """Settings of other runs, which must stay as they are."""

    dataset: str = setting(
        "", "Minari data set in $MINARI_DATASETS_PATH, e.g. pendulum/medium-v0; recipes/record.py"
    )
    total_timesteps: int = setting(20_000, "updates of the whole run", at_least=1)
    learning_starts: int = setting(0, "none: everything is there from the start", at_least=0)
    policy: str = setting(
        "gaussian",
        "gaussian is unsquashed, tanh_normal squashed",
        choices=("gaussian", "tanh_normal"),
    )
    n_action_samples: int = setting(
        4, "actions per state whose mean value is the baseline of an advantage (N)", at_least=1
    )
    e_step_critic: str = setting(
        "online", "critics that judge the data's actions", choices=("online", "target")
    )
    epsilon: float = setting(
        0.5, "E-step bound: KL of the weights to the data, over a batch, nats", above=0
    )
    temperature: str = setting(
        "learned",
        "exact: solved for in every batch; fixed: init_temperature; infinite: behaviour cloning",
        choices=("learned", "exact", "fixed", "infinite"),
    )
    max_weight: float = setting(
        20.0, "weights of the data's actions are clipped to so many times their mean", at_least=1
    )
    eval_every: int = setting(
        2000, "updates between two evaluations, each with checkpoint.zip", at_least=1
    )
    checkpoint_every: int = setting(10_000, "updates between two states to resume from", at_least=1)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            given = getattr(self, field.name) != field.metadata["default"]
            if given and field.name in self.UNUSED:
                raise SettingError(
                    f"{field.name} is not used by a run on a data set; leave it out."
                )
        super().__post_init__()
        if not self.dataset:
            raise SettingError(
                "dataset must be the id of a Minari data set: dataset=pendulum/medium-v0; "
                "recipes/record.py records one."
            )
