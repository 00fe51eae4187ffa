"""The runs whose CSV files are kept beside this file."""

from __future__ import annotations

from pathlib import Path

from mpo_torchrl.trainer.curves import Run, read_run

FOLDER = Path(__file__).parent

AGENTS = {
    "tuned": "MPO, tuned",
    "no_ceiling": "MPO, tuned without the ceiling",
    "one_update": "MPO, an update a step",
    "sac": "SAC, Stable-Baselines3",
    "sac_three_updates": "SAC, three updates a step",
    "acme_gym": "MPO, acme_gym",
    "tonic": "MPO, tonic",
}
SUITES = {
    "pendulum": ("Pendulum-v1",),
    "mujoco": ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"),
    "control": (
        "dm_control/cartpole-swingup",
        "dm_control/cheetah-run",
        "dm_control/walker-walk",
    ),
}
"""What benchmark.md compares: its agents by folder, and its tasks."""

PUBLISHED = {
    "HalfCheetah-v5": {"SAC": 5794.0},
    "Hopper-v5": {"SAC": 2014.0},
    "Walker2d-v5": {"SAC": 521.0},
    "dm_control/cartpole-swingup": {"MPO": 783.0, "DMPO": 552.0, "SAC": 829.0},
    "dm_control/cheetah-run": {"MPO": 188.0, "DMPO": 76.0, "SAC": 213.0},
    "dm_control/walker-walk": {"MPO": 278.0, "DMPO": 248.0, "SAC": 847.0},
}
"""Mean returns at 100,000 steps that others have published.

Gymnasium: jaxrl, 10 seeds on the v2 tasks. dm_control: MPO and DMPO from the scores of DreamerV3's
repository, 10 seeds; SAC from pytorch_sac, 1 to 3 seeds.
"""

_NO_CEILING = "max_stddev=0"
_FLOOR = f"{_NO_CEILING} min_stddev=0.01"
_ONE_UPDATE = "utd_ratio=1 policy_delay=1"
_FAST = f"{_ONE_UPDATE} epsilon_stddev=1e-3"
ABLATIONS = {
    "HalfCheetah-v5": {
        "tuned": "benchmark/HalfCheetah-v5/tuned",
        "epsilon=0.1": "ablations/HalfCheetah-v5/epsilon_0.1",
        "n_step=3": "ablations/HalfCheetah-v5/n_step_3",
        "n_action_samples=5": "ablations/HalfCheetah-v5/n_action_samples_5",
        "layer_norm=false": "ablations/HalfCheetah-v5/no_layer_norm",
        "critic_cells=[256] critic_blocks=1": "ablations/HalfCheetah-v5/residual",
        "critic=quantile": "ablations/HalfCheetah-v5/quantile",
        "normalize_observation=true": "ablations/HalfCheetah-v5/normalized",
        "e_step_critic=target": "ablations/HalfCheetah-v5/target_critics",
        "temperature=exact": "ablations/HalfCheetah-v5/exact_temperature",
        "epsilon_mean=0.001": "ablations/HalfCheetah-v5/epsilon_mean_0.001",
        "tau=0.02": "ablations/HalfCheetah-v5/tau_0.02",
        "normalize_observation=true tau=0.02": "ablations/HalfCheetah-v5/normalized_tau_0.02",
        "init_stddev=0.3": "ablations/HalfCheetah-v5/init_stddev_0.3",
        "init_alpha_mean=100": "ablations/HalfCheetah-v5/init_alpha_mean_100",
        _NO_CEILING: "benchmark/HalfCheetah-v5/no_ceiling",
        _FLOOR: "ablations/HalfCheetah-v5/floor_0.01",
        f"{_FLOOR} epsilon_stddev=1e-3": "ablations/HalfCheetah-v5/stddev_1e-3_floor_0.01",
        f"{_ONE_UPDATE} {_FLOOR}": "ablations/HalfCheetah-v5/one_update_floor_0.01",
        f"{_FAST} {_NO_CEILING}": "ablations/HalfCheetah-v5/one_update_stddev_1e-3",
        f"{_FAST} {_FLOOR}": "benchmark/HalfCheetah-v5/one_update",
    },
    "Hopper-v5": {
        "tuned": "benchmark/Hopper-v5/tuned",
        "normalize_observation=true": "ablations/Hopper-v5/normalized",
        _NO_CEILING: "benchmark/Hopper-v5/no_ceiling",
        _FLOOR: "ablations/Hopper-v5/floor_0.01",
        f"{_ONE_UPDATE} {_FLOOR}": "ablations/Hopper-v5/one_update_floor_0.01",
        f"{_ONE_UPDATE} {_FLOOR} layer_norm=false": (
            "ablations/Hopper-v5/one_update_no_layer_norm_floor_0.01"
        ),
        f"{_ONE_UPDATE} {_FLOOR} normalize_observation=true": (
            "ablations/Hopper-v5/one_update_normalized_floor_0.01"
        ),
        f"{_ONE_UPDATE} {_FLOOR} policy=tanh_normal": (
            "ablations/Hopper-v5/one_update_squashed_floor_0.01"
        ),
        f"{_FAST} {_NO_CEILING} min_stddev=0.1": (
            "ablations/Hopper-v5/one_update_stddev_1e-3_floor_0.1"
        ),
        f"{_FAST} {_FLOOR} epsilon=0.1": (
            "ablations/Hopper-v5/one_update_stddev_1e-3_epsilon_0.1_floor_0.01"
        ),
    },
    "dm_control/walker-walk": {
        "tuned": "benchmark/dm_control/walker-walk/tuned",
        "epsilon=0.1": "ablations/dm_control/walker-walk/epsilon_0.1",
        "normalize_observation=true": "ablations/dm_control/walker-walk/normalized",
        _NO_CEILING: "benchmark/dm_control/walker-walk/no_ceiling",
        _ONE_UPDATE: "ablations/dm_control/walker-walk/one_update",
    },
}
"""The folders of runs with the preset ``tuned`` and other settings, by these settings."""


def seeds(folder: str) -> list[Run]:
    """The runs of a folder, one a seed, in order; none if there is no such folder."""
    runs = [read_run(path) for path in sorted((FOLDER / folder).glob("seed*.csv"))]
    return [run for run in runs if run is not None]


def benchmark_runs(task: str) -> dict[str, list[Run]]:
    """The runs of every agent that has some in the task, by the agent's name."""
    runs = {name: seeds(f"benchmark/{task}/{agent}") for agent, name in AGENTS.items()}
    return {name: members for name, members in runs.items() if members}


def ablation_runs(task: str) -> dict[str, list[Run]]:
    """The runs of every change of the settings, of the seeds that all of them have."""
    found = {settings: seeds(folder) for settings, folder in ABLATIONS[task].items()}
    found = {settings: runs for settings, runs in found.items() if runs}
    common = set.intersection(*({run.path.stem for run in runs} for runs in found.values()))
    return {
        settings: [run for run in runs if run.path.stem in common]
        for settings, runs in found.items()
    }


def further_runs(task: str, settings: str) -> list[Run]:
    """The runs of seeds that not all changes of the settings have: how far seeds are apart."""
    compared = {run.path for run in ablation_runs(task)[settings]}
    return [run for run in seeds(ABLATIONS[task][settings]) if run.path not in compared]
