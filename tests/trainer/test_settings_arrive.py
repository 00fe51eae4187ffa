from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mpo_torchrl.modules import ResidualBlock
from mpo_torchrl.trainer import MPOConfig, MPOTrainer, Progress, RunStates
from tests.trainer.small import SETTINGS, small_config


def width(trainer):
    return trainer.loss_module.actor_network[0].module[0][0].out_features


def layer_names(trainer):
    return {type(m).__name__ for m in trainer.loss_module.actor_network.modules()}


def actor_widths(trainer):
    body = trainer.loss_module.actor_network[0].module[0]
    return [layer.out_features for layer in body if hasattr(layer, "out_features")]


def critic_widths(trainer):
    body = trainer.loss_module.qvalue_network.module.body
    return [layer.out_features for layer in body if hasattr(layer, "out_features")]


def count_blocks(trainer):
    networks = trainer.loss_module.qvalue_network.modules()
    return sum(isinstance(module, ResidualBlock) for module in networks)


def limit_of_stddev(output):
    def stddev(trainer):
        head = trainer.loss_module.actor_network[0].module[1]
        return round(head(torch.full((2,), output))[1].item() / 2, 6)

    return stddev


def largest_gradient_norm(trainer):
    """Of the actor's and the critics' gradients, as the optimizer is about to use them."""
    norms = []

    def measure(optimizer, *_):
        for group in optimizer.param_groups[:-1]:
            gradients = [p.grad.norm() for p in group["params"]]
            norms.append(torch.stack(gradients).norm().item())

    trainer.optimizer.register_step_pre_hook(measure)
    trainer.train()
    assert len(norms) == 60  # two networks, 30 updates
    return max(norms)


def sampled_actions(trainer):
    batch = next(iter(trainer.collector)).select(*trainer.loss_module.in_keys)
    return trainer.loss_module.e_step(batch)["e_step", "action"].shape[1]


def first_weight(trainer):
    return next(trainer.loss_module.parameters()).flatten()[0].item()


def initial_stddev(trainer):
    state = trainer.collector.env.reset()
    return round(trainer.loss_module.actor_network.get_dist(state).base_dist.scale.item() / 2, 2)


def starting_value(name):
    return lambda trainer: getattr(trainer.loss_module, name)().flatten()[0].item()


def bound(name):
    return lambda trainer: getattr(trainer.loss_module, name).item()


def critic(attribute):
    return lambda trainer: getattr(trainer.loss_module.critic, attribute)


def atom(index):
    return lambda trainer: trainer.loss_module.critic.support[index].item()


def also_logs_to(trainer):
    trainer.logger.log_hparams({})
    return type(trainer.logger.further).__name__


def states(trainer):
    return RunStates(Path("here"), trainer.config, Progress())


# setting: (a value off its default, where it acts, what is seen there)
CASES = {
    "env": ("MountainCarContinuous-v0", lambda t: t.collector.env.action_spec.high.item(), 1.0),
    "seed": (4, first_weight, None),
    "total_timesteps": (80, lambda t: t.total_frames, 80),
    "run_dir": ("here", lambda t: str(t.logger.path), "here/progress.csv"),
    "device": ("cpu", lambda t: next(t.loss_module.parameters()).device.type, "cpu"),
    "num_threads": (2, lambda t: torch.get_num_threads(), 2),
    "compile": (True, lambda t: t.stepper.loss is t.loss_module, False),
    "progress_bar": (True, lambda t: t.progress_bar, True),
    "logger": ("tensorboard", also_logs_to, "TensorboardLogger"),
    "num_envs": (2, lambda t: t.collector.env.batch_size[0], 2),
    "env_processes": (True, None, None),
    "action_repeat": (3, lambda t: t.collector.env.base_env.wrapper_frame_skip, 3),
    "frame_skip": (3, None, None),
    "hidden_observation": ([2], lambda t: t.collector.env.observation_spec["observation"].shape[-1],
                           2),
    "reward_scale": (0.5, lambda t: t.replay_buffer.transform[0].scale.item(), 0.5),
    "normalize_observation": (True, lambda t: type(t.policy.normalizer).__name__,
                              "ObservationNormalizer"),
    "hidden": (24, width, 24),
    "actor_cells": ([5, 6, 7], actor_widths, [5, 6, 7, 2]),
    "critic_cells": ([5, 6, 7], critic_widths, [5, 6, 7, 1]),
    "critic_blocks": (2, count_blocks, 2),
    "recurrent": ("lstm", lambda t: type(t.loss_module.actor_network[0].module[0]).__name__,
                  "LSTMModule"),
    "state_size": (5, lambda t: t.collector.env.reset()["actor_state"].shape[-1], 5),
    "layer_norm": (False, lambda t: "LayerNorm" in layer_names(t), False),
    "num_critics": (3, lambda t: len(t.loss_module.qvalue_network_params.unbind(0)), 3),
    "critic": ("quantile", lambda t: type(t.loss_module.critic).__name__, "QuantileCritic"),
    "vmin": (-50.0, atom(0), -50.0),
    "vmax": (50.0, atom(-1), 50.0),
    "num_atoms": (11, critic("num_outputs"), 11),
    "num_quantiles": (8, critic("num_outputs"), 8),
    "num_components": (2, critic("num_outputs"), 6),
    "init_value_stddev": (10.0, critic("init_scale"), 10.0),
    "policy": ("tanh_normal", lambda t: t.loss_module.actor_network[-1].distribution_class.__name__,
               "TanhNormal"),
    "init_stddev": (0.25, initial_stddev, 0.25),
    "min_stddev": (0.1, limit_of_stddev(-1e4), 0.1),
    "max_stddev": (0.8, limit_of_stddev(1e4), 0.8),
    "learning_rate": (1e-3, lambda t: t.optimizer.param_groups[0]["lr"], 1e-3),
    "critic_lr": (2e-3, lambda t: t.optimizer.param_groups[1]["lr"], 2e-3),
    "max_grad_norm": (1e-3, largest_gradient_norm, 1e-3),
    "dual_lr": (3e-3, lambda t: t.optimizer.param_groups[1]["lr"], 3e-3),
    "batch_size": (8, lambda t: t.replay_buffer.batch_size, 8),
    "buffer_size": (999, lambda t: t.replay_buffer.storage.max_size, 999),
    "learning_starts": (20, lambda t: t.collector.init_random_frames, 20),
    "steps_per_batch": (5, lambda t: t.collector.frames_per_batch, 5),
    "utd_ratio": (0.5, lambda t: t.optim_steps_per_batch, 5),
    "policy_delay": (2, lambda t: t.stepper.loss.policy_delay, 2),
    "gamma": (0.9, lambda t: t.loss_module.value_estimator.gamma.item(), 0.9),
    "n_step": (3, lambda t: t.replay_buffer.transform[0].n_steps, 3),
    "sequence_length": (4, lambda t: t.replay_buffer.sampler.slice_len, 4),
    "burn_in": (2, lambda t: t.loss_module._memories.burn_in, 2),
    "value_estimator": ("td_lambda", lambda t: type(t.loss_module.value_estimator).__name__,
                        "TDLambdaEstimator"),
    "lmbda": (0.5, lambda t: t.loss_module.value_estimator.lmbda, 0.5),
    "tau": (0.1, lambda t: 1 - t.target_net_updater.eps, 0.1),
    "target_period": (7, lambda t: t.target_net_updater.period, 7),
    "delay_actor": (False, lambda t: t.loss_module.delay_actor, False),
    "delay_qvalue": (False, lambda t: t.loss_module.delay_qvalue, False),
    "n_action_samples": (7, sampled_actions, 7),
    "n_bootstrap_samples": (5, lambda t: t.loss_module.num_bootstrap_samples, 5),
    "e_step_critic": ("target", lambda t: t.loss_module.e_step_critic, "target"),
    "epsilon": (0.3, bound("epsilon"), 0.3),
    "epsilons": ([0.3, 0.4], lambda t: [float(e) for e in t.loss_module.epsilon.values()],
                 pytest.approx([0.3, 0.4])),
    "objectives": (["a", "b"], lambda t: list(t.loss_module.epsilon), ["a", "b"]),
    "epsilon_policy": (0.7, bound("epsilon_policy"), 0.7),
    "epsilon_mean": (0.4, bound("epsilon_mean"), 0.4),
    "epsilon_stddev": (0.5, bound("epsilon_stddev"), 0.5),
    "per_dim_constraining": (False, lambda t: list(t.loss_module.alpha_mean().shape), []),
    "epsilon_penalty": (0.6, bound("epsilon_penalty"), 0.6),
    "temperature": ("exact", lambda t: type(t.loss_module.temperature).__name__,
                    "ExactTemperature"),
    "init_temperature": (2.0, starting_value("temperature"), 2.0),
    "init_penalty_temperature": (5.0, starting_value("penalty_temperature"), 5.0),
    "init_alpha_policy": (5.0, starting_value("alpha_policy"), 5.0),
    "init_alpha_mean": (3.0, starting_value("alpha_mean"), 3.0),
    "init_alpha_stddev": (4.0, starting_value("alpha_stddev"), 4.0),
    "parametrization": ("exp", lambda t: t.loss_module.temperature.raw.item(), 0.0),
    "eval_every": (20, lambda t: t._post_steps_log_ops[0][0].__wrapped__.every, 20),
    "checkpoint_every": (20, lambda t: t._post_steps_log_ops[1][0].__wrapped__.every, 20),
    "keep_checkpoints": (5, lambda t: states(t).rotation.keep_last, 5),
    "resume": ("never", None, None),
    "eval_episodes": (2, lambda t: t.evaluation_env.batch_size[0], 2),
}  # fmt: skip


# What a setting needs beside it.
DISCRETE = {"policy": "categorical", "env": "CartPole-v1"}
SEVERAL = {"env": "mo-mountaincarcontinuous-v0", "epsilons": [0.1, 0.1]}
COMPANIONS = {
    "epsilons": {"env": SEVERAL["env"]},
    "objectives": SEVERAL,
    "logger": {"run_dir": "here"},
    "epsilon_policy": DISCRETE,
    "init_alpha_policy": DISCRETE,
    "vmin": {"critic": "c51"},
    "vmax": {"critic": "c51"},
    "num_atoms": {"critic": "two_hot"},
    "num_quantiles": {"critic": "quantile"},
    "num_components": {"critic": "mixture"},
    "init_value_stddev": {"critic": "mixture"},
    "recurrent": {"sequence_length": 4},
    "state_size": {"sequence_length": 4, "recurrent": "gru"},
    "burn_in": {"sequence_length": 4, "recurrent": "gru"},
    "value_estimator": {"sequence_length": 4},
    "lmbda": {"sequence_length": 4, "value_estimator": "retrace"},
}


def test_every_setting_has_a_case():
    assert set(CASES) == {field.name for field in dataclasses.fields(MPOConfig)}


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_a_setting_arrives_where_it_acts(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, look, expected = CASES[name]
    if look is None:
        pytest.skip("seen in test_environment.py or test_resume.py")
    if name != "device":  # the only one that is everywhere
        assert value != SETTINGS.get(name, getattr(MPOConfig(), name))
    settings = {name: value, **COMPANIONS.get(name, {})}
    seen = look(MPOTrainer.from_config(small_config(**settings)))
    if expected is None:
        assert seen != look(MPOTrainer.from_config(small_config()))
    else:
        assert seen == (pytest.approx(expected) if isinstance(expected, float) else expected)


if __name__ == "__main__":
    pytest.main([__file__])
