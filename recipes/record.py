"""Record a Minari data set: episodes of a trained agent, or of a random policy.

    python recipes/record.py dataset=pendulum/medium-v0 run=runs/Pendulum-v1-42-20260101-120000
    python recipes/record.py dataset=pendulum/random-v0 env=Pendulum-v1
    python recipes/record.py --help

An agent of medium strength is that of a run with few steps, such as ``python recipes/mpo.py
total_timesteps=4000``. The data set is written on this machine alone, into $MINARI_DATASETS_PATH or
~/.minari/datasets, where recipes/offline.py finds it. The last line on stdout is ``mean_reward:
<number>``, the mean return of the episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch
from tensordict import TensorDict
from tqdm import tqdm

from mpo_torchrl.trainer import (
    MeanPolicy,
    OfflineConfig,
    SamplingPolicy,
    SettingError,
    VMPOConfig,
    make_env,
    seed_everything,
)
from mpo_torchrl.trainer.config import RunConfig
from mpo_torchrl.trainer.dataset import record_dataset, require_new
from mpo_torchrl.trainer.environment import SUITE
from mpo_torchrl.trainer.evaluation import load_policy
from mpo_torchrl.trainer.seeding import LAST_SEED
from mpo_torchrl.trainer.tool import option, require_within, run_tool

PLAIN = {"action_repeat": 1, "recurrent": "none", "hidden_observation": [], "epsilons": []}
"""Settings that a run must have whose agent is recorded."""


@dataclass
class Settings:
    """What can be set on the command line."""

    dataset: str = option("", "id of the new data set, e.g. pendulum/medium-v0")
    run: str = option("", "folder of a run, or a checkpoint file; empty: a random policy")
    checkpoint: str = option("checkpoint.zip", "the file of the folder; best.zip for its best")
    env: str = option("", "Gymnasium id, for the random policy; with run it is the run's")
    episodes: int = option(100, "episodes")
    mean_action: bool = option(False, "play the mean action, not a sample of the policy")
    seed: int = option(0, "fixes the start states and the actions")
    progress_bar: bool = option(True, "show a progress bar")


def record(settings: Settings) -> dict[str, Any]:
    """Play the episodes and write them; what they are."""
    if not settings.dataset:
        raise SettingError("dataset must be the id of the new data set: dataset=pendulum/medium-v0")
    require_within("episodes", settings.episodes, 1)
    require_within("seed", settings.seed, 0, LAST_SEED - settings.episodes)
    require_new(settings.dataset)

    name, options, act, description = choose_policy(settings)
    seed_everything(settings.seed)
    env = gymnasium.make(name, **options)
    env.action_space.seed(settings.seed)
    seeds = range(settings.seed, settings.seed + settings.episodes)
    returns = record_dataset(
        settings.dataset,
        env,
        act or (lambda _: env.action_space.sample()),
        tqdm(seeds, unit="episode", disable=not settings.progress_bar),
        algorithm_name=description,
        description=f"{settings.episodes} episodes of {name}, played by {description}.",
    )
    env.close()
    return {
        "dataset": settings.dataset,
        "env": name,
        "episodes": len(returns),
        "mean_reward": float(returns.mean()),
        "return_stddev": float(returns.std()),
    }


def choose_policy(
    settings: Settings,
) -> tuple[str, dict[str, Any], Callable[[Any], Any] | None, str]:
    """The environment, how it is made, what acts in it (``None``: at random), and who that is."""
    if not settings.run:
        if not settings.env:
            raise SettingError("run or env must be set: run=runs/... or env=Pendulum-v1")
        require_gymnasium(settings.env)
        make_env(settings.env).close()  # names what is wrong with it
        return settings.env, {}, None, "a random policy"
    run = Path(settings.run).expanduser()
    checkpoint = run if run.is_file() else run / settings.checkpoint
    policy, config, counters = load_policy(checkpoint)
    require_gymnasium(config.env)
    if settings.env not in ("", config.env):
        raise SettingError(f"env must be that of the run, {config.env!r}, got {settings.env!r}.")
    if config.policy == "categorical":
        raise SettingError(f"run must have continuous actions, got policy {config.policy!r}.")
    found = config.to_dict()
    for setting, plain in PLAIN.items():
        if found.get(setting, plain) != plain:  # V-MPO does without some of them
            raise SettingError(
                "a data set holds the environment's own steps, as a policy without memory sees "
                f"them; run must have {setting}={plain}, got {found[setting]}."
            )
    options = {"frame_skip": config.frame_skip} if config.frame_skip else {}
    act = actions_of(policy, settings.mean_action)
    return config.env, options, act, describe_agent(config, counters)


def describe_agent(config: RunConfig, counters: dict[str, int]) -> str:
    """Who played, and how long that one has learned."""
    if isinstance(config, OfflineConfig):
        return f"offline MPO after {counters['updates']} updates"
    name = "V-MPO" if isinstance(config, VMPOConfig) else "MPO"
    return f"{name} after {counters['env_steps']} steps"


def require_gymnasium(name: str) -> None:
    if name.startswith(SUITE):
        raise SettingError(f"Minari data sets are of Gymnasium environments, got env {name!r}.")


def actions_of(policy: MeanPolicy, mean_action: bool) -> Callable[[Any], Any]:
    """From an observation of the environment to an action, arrays both."""
    player = policy if mean_action else SamplingPolicy(policy.actor, policy.normalizer)

    def act(observation: Any) -> Any:
        state = TensorDict(observation=torch.as_tensor(observation, dtype=torch.float32))
        return player(state).get("action").numpy()

    return act


def report(found: dict[str, Any]) -> None:
    """What was recorded in words, the mean return last."""
    print(f"{found['episodes']} episodes of {found['env']} in data set {found['dataset']}")
    print(f"stddev over episodes: {found['return_stddev']:.2f}")
    print(f"mean_reward: {found['mean_reward']}")


def main() -> None:
    """The program with the settings of the command line."""
    run_tool(Settings, lambda settings: report(record(settings)), __doc__ or "")


if __name__ == "__main__":
    main()
