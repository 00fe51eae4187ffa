"""Train an agent with V-MPO, on-policy, with discrete or continuous actions.

    python recipes/vmpo.py env=CartPole-v1
    python recipes/vmpo.py env=Pendulum-v1 seed=1 total_timesteps=300_000
    python recipes/vmpo.py --help

Reads downwards: settings, environment, networks, loss, data, loop. What it leaves in its folder is
what recipes/mpo.py leaves, and with the same ``run_dir`` the same command continues a run, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mpo_torchrl.targets import PeriodicUpdate
from mpo_torchrl.trainer import (
    MeanPolicy,
    Progress,
    Report,
    RewardScale,
    RunStates,
    VMPOConfig,
    add_advantages,
    choose_policy,
    due,
    evaluate,
    finished_returns,
    make_collector,
    make_evaluation_env,
    make_logger,
    make_optimizer,
    make_run_dir,
    make_training_env,
    make_vmpo_loss,
    minibatches,
    progress_line,
    seed_everything,
    stop_request,
    total_loss,
    transitions,
)
from mpo_torchrl.trainer.command_line import run_from_command_line
from mpo_torchrl.trainer.plot import draw_learning_curve


def train(config: VMPOConfig) -> dict[str, Any]:
    """One run, from the settings to the figures in ``metrics.json``."""
    # Settings
    progress = Progress()
    progress.start_clock()
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    config = choose_policy(config)
    seed_everything(config.seed)

    # Environment
    env = make_training_env(config)
    env.set_seed(config.seed)
    evaluation_env = make_evaluation_env(config)

    # Networks and loss
    actor, loss = make_vmpo_loss(env, config)
    optimizer = make_optimizer(loss, config)
    # Copies at every step(); the policy that collects a batch is the reference while it is learned.
    target_updater = PeriodicUpdate(loss, period=1)
    policy = MeanPolicy(actor)

    # Data
    collector = make_collector(env, actor, config)
    reward_scale = RewardScale(config.gamma)

    # Files: what continues a run, and what is learned
    run_dir = make_run_dir(config)
    table = make_logger(config, run_dir)
    learner = {"loss": loss, "optimizer": optimizer}
    parts = {"collector": collector, "reward_scale": reward_scale, "table": table}
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
            end = progress.env_steps + batch.numel()
            data = transitions(batch, loss.in_keys, progress.env_steps, end).to(config.device)
            if config.normalize_reward:
                following = data["next"]
                reward = reward_scale(following["reward"], following["done"])
                data["next"] = following.replace(reward=reward)
            progress.env_steps = end

            for _ in range(config.epochs):
                steps = add_advantages(loss, data)
                for minibatch in minibatches(steps, config.batch_size):
                    losses = loss(minibatch)
                    total_loss(losses).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    progress.updates += 1
            target_updater.step()
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
    # Diagnostics are those of the last update: since then the policy is its own reference.
    rows = table.rows or [{}]  # none in a run that is asked for no step after its last state
    last = {key: value for key, value in rows[-1].items() if key in loss.out_keys}
    metrics = report.finish(last)
    draw_learning_curve(run_dir / "learning_curve.png", table, f"V-MPO on {config.env}")
    table.shutdown()
    collector.shutdown()
    evaluation_env.close(raise_if_closed=False)  # a finished run opened none
    return metrics


if __name__ == "__main__":
    run_from_command_line(
        train,
        Path(__file__).parent / "configs" / "vmpo",
        "train an agent with V-MPO",
        VMPOConfig,
    )
