"""Train an agent with MPO on a Minari data set, without a step of the environment.

    python recipes/record.py dataset=pendulum/medium-v0 run=runs/Pendulum-v1-42-20260101-120000
    python recipes/offline.py dataset=pendulum/medium-v0 env=Pendulum-v1
    python recipes/offline.py --help

Reads downwards: settings, environment, data, networks, loss, loop. The environment is only played
in evaluations. An update counts as a step: total_timesteps, eval_every and the column env_steps of
progress.csv count updates. It leaves in its folder what recipes/mpo.py leaves, and with the same
``run_dir`` the same command continues a run, too. metrics.json has the returns of the data set's
own episodes beside those of the agent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mpo_torchrl.trainer import (
    MeanPolicy,
    OfflineConfig,
    Progress,
    Report,
    RunStates,
    diagnose,
    evaluate,
    make_evaluation_env,
    make_logger,
    make_loss,
    make_normalizer,
    make_optimizer,
    make_replay_buffer,
    make_run_dir,
    make_target_updater,
    make_training_env,
    progress_line,
    seed_everything,
    stop_request,
    total_loss,
    transitions,
    update_loss,
)
from mpo_torchrl.trainer.command_line import run_from_command_line
from mpo_torchrl.trainer.dataset import load_dataset
from mpo_torchrl.trainer.plot import draw_learning_curve


def train(config: OfflineConfig) -> dict[str, Any]:
    """One run, from the settings to the figures in ``metrics.json``."""
    # Settings
    progress = Progress()
    progress.start_clock()
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    seed_everything(config.seed)

    # Environment: this one is only asked for its specs
    env = make_training_env(config)
    evaluation_env = make_evaluation_env(config)

    # Data
    dataset = load_dataset(config.dataset, config.env, env)
    tqdm.write(
        f"{config.dataset}: {len(dataset.transitions):,} steps, {len(dataset.returns):,} episodes,"
        f" return {dataset.returns.mean():.2f} +- {dataset.returns.std(correction=0):.2f}"
    )

    # Networks and loss
    actor, loss = make_loss(env, config)
    optimizer = make_optimizer(loss, config)
    target_updater = make_target_updater(loss, config)
    compute_losses = update_loss(loss, compile=config.compile)
    normalizer = make_normalizer(env, loss, config)
    policy = MeanPolicy(actor, normalizer)
    env.close()

    # Replay: the whole data set, which stays as it is
    number = len(dataset.transitions)
    replay_buffer = make_replay_buffer(config, normalizer, size=number)
    replay_buffer.extend(transitions(dataset.transitions, loss.in_keys, 0, number))

    # Files: what continues a run, and what is learned
    run_dir = make_run_dir(config)
    table = make_logger(config, run_dir)
    learner = {"loss": loss, "optimizer": optimizer}
    parts = {"table": table, "target_updater": target_updater}
    states = RunStates(run_dir, config, progress, **learner, **parts)
    state = states.restore()
    table.log_hparams(config.to_dict())
    report = Report(
        config=config,
        progress=progress,
        learner=learner,
        play=lambda: evaluate(evaluation_env, policy),
        logger=table,
        run_dir=run_dir,
    )

    # Loop
    losses = None
    finished = progress.env_steps >= config.total_timesteps
    bar = tqdm(
        total=config.total_timesteps,
        initial=progress.env_steps,
        unit="update",
        disable=not config.progress_bar,
    )
    with bar, stop_request() as stop, report.keeping_last_good():
        if state is not None:
            tqdm.write(f"{progress.env_steps:9,} updates  continued from {state}")
        while not finished:
            losses = compute_losses(replay_buffer.sample())
            total_loss(losses).backward()
            optimizer.step()
            optimizer.zero_grad()
            target_updater.step()
            progress.updates += 1
            progress.env_steps = progress.updates
            bar.update()

            finished = stop.received or progress.updates >= config.total_timesteps
            if finished or progress.updates % config.eval_every == 0:
                row = report.evaluate(losses)
                tqdm.write(progress_line(progress.updates, row))
            if finished or progress.updates % config.checkpoint_every == 0:
                states.save()

    # Results
    metrics = report.finish(
        diagnose(loss, replay_buffer.sample()),
        env_steps=0,
        dataset=config.dataset,
        dataset_steps=number,
        dataset_episodes=len(dataset.returns),
        behaviour_return_mean=dataset.returns.mean().item(),
        behaviour_return_stddev=dataset.returns.std(correction=0).item(),
    )
    draw_learning_curve(run_dir / "learning_curve.png", table, f"Offline MPO on {config.dataset}")
    table.shutdown()
    evaluation_env.close(raise_if_closed=False)  # a finished run opened none
    return metrics


if __name__ == "__main__":
    run_from_command_line(
        train,
        Path(__file__).parent / "configs" / "offline",
        "train an agent with MPO on a Minari data set",
        OfflineConfig,
    )
