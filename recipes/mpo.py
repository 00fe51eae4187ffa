"""Train an agent with MPO.

    python recipes/mpo.py env=HalfCheetah-v5 seed=1 total_timesteps=50_000
    python recipes/mpo.py --help

Reads downwards: settings, environment, networks, loss, data, loop. What it leaves in its folder:
settings.json, progress.csv, learning_curve.png, metrics.json, checkpoint.zip and best.zip, from
which ``mpo_torchrl.MPOTrainer.load`` brings the agent back, and resume/: with the same ``run_dir``
the same command continues a run that was stopped or killed, bit for bit as if it had not been.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mpo_torchrl.trainer import (
    MeanPolicy,
    MPOConfig,
    Progress,
    Report,
    RunStates,
    diagnose,
    due,
    evaluate,
    finished_returns,
    make_collector,
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
from mpo_torchrl.trainer.plot import draw_learning_curve


def train(config: MPOConfig) -> dict[str, Any]:
    """One run, from the settings to the figures in ``metrics.json``."""
    # Settings
    progress = Progress([*config.bounds])
    progress.start_clock()
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
    compute_losses = update_loss(loss, compile=config.compile, policy_delay=config.policy_delay)
    normalizer = make_normalizer(env, loss, config)
    policy = MeanPolicy(actor, normalizer)

    # Data
    collector = make_collector(env, actor, config, normalizer)
    replay_buffer = make_replay_buffer(config, normalizer)

    # Files: what continues a run, and what is learned
    run_dir = make_run_dir(config)
    table = make_logger(config, run_dir)
    learner = {"loss": loss, "optimizer": optimizer}
    states = RunStates(
        run_dir,
        config,
        progress,
        **learner,
        collector=collector,
        replay_buffer=replay_buffer,
        table=table,
        target_updater=target_updater,
    )
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
    batches = iter(collector)
    finished = progress.env_steps >= config.total_timesteps
    bar = tqdm(
        total=config.total_timesteps,
        initial=progress.env_steps,
        unit="step",
        disable=not config.progress_bar,
    )
    with bar, stop_request() as stop, report.keeping_last_good():
        if state is not None:
            tqdm.write(f"{progress.env_steps:9,} steps  continued from {state}")
        while not finished:
            batch = next(batches)
            data = transitions(batch, loss.in_keys, progress.env_steps, config.total_timesteps)
            replay_buffer.extend(data)
            progress.env_steps += data.numel()

            if progress.env_steps >= config.random_steps:
                for _ in range(config.updates_per_batch):
                    losses = compute_losses(replay_buffer.sample())
                    total_loss(losses).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    target_updater.step()
                    progress.updates += 1
                collector.update_policy_weights_()

            bar.update(data.numel())
            for episode_return in finished_returns(batch).tolist():
                bar.set_postfix(train_return=episode_return, refresh=False)

            finished = stop.received or progress.env_steps >= config.total_timesteps
            if finished or due(config.eval_every, progress.env_steps, data):
                row = report.evaluate(losses)
                tqdm.write(progress_line(progress.env_steps, row))
            if finished or due(config.checkpoint_every, progress.env_steps, data):
                states.save()

    # Results
    diagnostics = diagnose(loss, replay_buffer.sample()) if len(replay_buffer) else {}
    metrics = report.finish(diagnostics)
    draw_learning_curve(run_dir / "learning_curve.png", table, f"MPO on {config.env}")
    table.shutdown()
    collector.shutdown()
    evaluation_env.close(raise_if_closed=False)  # a finished run opened none
    return metrics


if __name__ == "__main__":
    run_from_command_line(train, Path(__file__).parent / "configs", "train an agent with MPO")
