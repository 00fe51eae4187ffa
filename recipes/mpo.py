"""Train an agent with MPO.

    python recipes/mpo.py env=HalfCheetah-v5 seed=1 total_timesteps=50_000
    python recipes/mpo.py --help

Reads downwards: settings, environment, networks, loss, data, loop. What it leaves in its folder:
settings.json, progress.csv, learning_curve.png, metrics.json and checkpoint.zip, from which
``mpo_torchrl.MPOTrainer.load`` brings the agent back.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mpo_torchrl.trainer import (
    MeanPolicy,
    MPOConfig,
    NonFiniteError,
    diagnose,
    evaluate,
    final_metrics,
    finished_returns,
    is_finite,
    last_good,
    make_collector,
    make_evaluation_env,
    make_logger,
    make_loss,
    make_optimizer,
    make_replay_buffer,
    make_run_dir,
    make_target_updater,
    make_training_env,
    progress_line,
    progress_row,
    save_checkpoint,
    seed_everything,
    stop_request,
    total_loss,
    transitions,
    write_metrics,
)
from mpo_torchrl.trainer.command_line import run_from_command_line
from mpo_torchrl.trainer.plot import draw_learning_curve


def train(config: MPOConfig) -> dict[str, Any]:
    """One run, from the settings to the figures in ``metrics.json``."""
    # Settings
    start = time.perf_counter()
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    seed_everything(config.seed)

    # Environment
    env = make_training_env(config)
    env.set_seed(config.seed)
    evaluation_env = make_evaluation_env(config)

    # Networks and loss
    actor, loss = make_loss(env, config)
    optimizer = make_optimizer(loss, config)
    target_updater = make_target_updater(loss, config)
    policy = MeanPolicy(actor)

    # Data
    collector = make_collector(env, actor, config)
    replay_buffer = make_replay_buffer(config)

    # Files
    run_dir = make_run_dir(config)
    checkpoint = run_dir / "checkpoint.zip"
    table = make_logger(config, run_dir)
    table.log_hparams(config.to_dict())
    env_steps = updates = 0

    def save() -> None:
        counters = {"env_steps": env_steps, "updates": updates}
        save_checkpoint(checkpoint, config, counters, loss=loss, optimizer=optimizer)

    # Loop
    losses = None
    progress = tqdm(total=config.total_timesteps, unit="step", disable=not config.progress_bar)
    try:
        with progress, stop_request() as stop:
            for batch in collector:
                data = transitions(batch, loss.in_keys, env_steps, config.total_timesteps)
                replay_buffer.extend(data)
                env_steps += data.numel()

                if env_steps >= config.random_steps:
                    for _ in range(config.updates_per_batch):
                        losses = loss(replay_buffer.sample())
                        total_loss(losses).backward()
                        optimizer.step()
                        optimizer.zero_grad()
                        target_updater.step()
                        updates += 1
                    collector.update_policy_weights_()

                progress.update(data.numel())
                for episode_return in finished_returns(batch).tolist():
                    progress.set_postfix(train_return=episode_return, refresh=False)

                finished = stop.received or env_steps >= config.total_timesteps
                if finished or env_steps % config.eval_every < data.numel():
                    returns = evaluate(evaluation_env, policy)
                    row = progress_row(returns, updates, time.perf_counter() - start, losses)
                    table.log_metrics(row, step=env_steps)
                    tqdm.write(progress_line(env_steps, row))
                    save()
                if finished:
                    break
    except NonFiniteError as error:
        if is_finite(loss):  # what was learned before the bad number is kept
            save()
        raise NonFiniteError(f"{error} {last_good(checkpoint)}") from error

    # Results
    draw_learning_curve(run_dir / "learning_curve.png", table, f"MPO on {config.env}")
    metrics = final_metrics(
        config,
        returns,
        env_steps=env_steps,
        updates=updates,
        wall_seconds=time.perf_counter() - start,
        diagnostics=diagnose(loss, replay_buffer.sample()),
    )
    write_metrics(run_dir / "metrics.json", metrics)
    table.shutdown()
    collector.shutdown()
    evaluation_env.close()
    return metrics


if __name__ == "__main__":
    run_from_command_line(train, Path(__file__).parent / "configs", "train an agent with MPO")
