"""Play a trained agent: the return of each episode, and a film of the first.

    python recipes/evaluate.py run=runs/Pendulum-v1-42-20260101-120000 episodes=10 video=true
    python recipes/evaluate.py --help

Writes evaluation.json, and video.mp4 if asked to, into the run's folder or ``output``. The last
line on stdout is ``mean_reward: <number>``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpo_torchrl.trainer import (
    Progress,
    SettingError,
    evaluate,
    make_evaluation_env,
    write_metrics,
)
from mpo_torchrl.trainer.environment import env_settings
from mpo_torchrl.trainer.evaluation import EVALUATION_SEED, load_policy
from mpo_torchrl.trainer.results import OBJECTIVE, return_figures
from mpo_torchrl.trainer.seeding import LAST_SEED
from mpo_torchrl.trainer.tool import option, require_within, run_tool
from mpo_torchrl.trainer.video import (
    record_episode,
    render_offscreen,
    require_encoder,
    write_video,
)


@dataclass
class Settings:
    """What can be set on the command line."""

    run: str = option("", "folder of a run, or a checkpoint file")
    checkpoint: str = option("checkpoint.zip", "the file of the folder; best.zip for its best")
    episodes: int = option(10, "episodes, played with the mean action")
    seed: int = option(EVALUATION_SEED, "fixes where they start; by default as in training")
    video: bool = option(False, "film the first episode, also without a screen")
    output: str = option("", "folder of the results; empty: that of the run")


def evaluate_run(settings: Settings) -> dict[str, Any]:
    """Play the episodes; the figures of ``evaluation.json``."""
    if not settings.run:
        raise SettingError("run must be the folder of a run or a checkpoint: run=runs/...")
    require_within("episodes", settings.episodes, 1)
    require_within("seed", settings.seed, 0, LAST_SEED)
    if settings.video:
        require_encoder()
        render_offscreen()
    run = Path(settings.run).expanduser()
    checkpoint = run if run.is_file() else run / settings.checkpoint
    output = Path(settings.output).expanduser() if settings.output else checkpoint.parent

    policy, config, counters = load_policy(checkpoint)
    config = dataclasses.replace(config, eval_episodes=settings.episodes)
    env = make_evaluation_env(config)
    progress = Progress([*config.bounds])
    progress.note(evaluate(env, policy, settings.seed))
    env.close()

    output.mkdir(parents=True, exist_ok=True)
    figures = return_figures(progress)
    metrics = {
        "env": config.env,
        "checkpoint": str(checkpoint),
        **counters,
        "episodes": settings.episodes,
        "seed": settings.seed,
        "mean_reward": figures.pop("eval_return_mean"),
        **figures,
        "returns": progress.returns,
    }
    write_metrics(output / "evaluation.json", metrics)  # there, whatever becomes of the film
    if settings.video:
        film = output / "video.mp4"
        metrics["video"] = str(film)
        _, frames, frames_per_second = record_episode(
            config.env, policy, settings.seed, **env_settings(config)
        )
        write_video(film, frames, frames_per_second)
        write_metrics(output / "evaluation.json", metrics)
    return metrics


def report(metrics: dict[str, Any]) -> None:
    """The results in words, the mean last."""
    for episode, value in enumerate(metrics["returns"]):
        print(f"episode {episode:3}  return {value:9.2f}")
    print(f"stddev over episodes: {metrics['eval_return_stddev']:.2f}")
    for name in metrics:
        if name.startswith(OBJECTIVE):
            print(f"mean return {name.removeprefix(OBJECTIVE)}: {metrics[name]:.2f}")
    if "video" in metrics:
        print(f"video of episode 0: {metrics['video']}")
    print(f"mean_reward: {metrics['mean_reward']}")


def main() -> None:
    """The program with the settings of the command line."""
    run_tool(Settings, lambda settings: report(evaluate_run(settings)), __doc__ or "")


if __name__ == "__main__":
    main()
