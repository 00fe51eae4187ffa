from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from mpo_torchrl.trainer import NonFiniteError, make_env
from mpo_torchrl.trainer.command_line import run_from_command_line

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
OWN_FILE = ["--config-dir", ".", "--config-name", "mine"]


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    """Calls a recipe that does nothing; returns exit code, settings, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, mine="", train=None):
        seen = []

        def remember(config):
            make_env(config.env)
            seen.append(config)
            return {"mean_reward": -1.5}

        (tmp_path / "mine.yaml").write_text(mine)
        monkeypatch.setattr(sys, "argv", ["mpo.py", *arguments])
        code = 0
        try:
            run_from_command_line(train or remember, CONFIGS, "do nothing")
        except SystemExit as stop:
            code = stop.code
        (tmp_path / "mine.yaml").unlink()
        assert list(tmp_path.iterdir()) == []  # Hydra leaves nothing behind
        return code, seen, *capsys.readouterr()

    return call


def test_defaults_are_those_of_the_dataclass(call):
    code, (config,), output, _ = call()
    assert (code, config.seed, config.total_timesteps) == (0, 42, 20_000)
    assert output == "mean_reward: -1.5\n"


def test_settings_are_flat_and_numbers_may_have_underscores(call):
    _, (config,), _, _ = call("total_timesteps=50_000", "epsilon=0.2", "policy=tanh_normal")
    assert (config.total_timesteps, config.epsilon) == (50_000, 0.2)
    assert config.policy == "tanh_normal"


def test_settings_named_like_a_group_of_torchrl_s_are_plain(call):
    import torchrl.trainers.algorithms.configs  # noqa: F401  registers the groups env, logger, ...

    _, (config,), _, _ = call("env=MountainCarContinuous-v0", "logger=csv")
    assert config.env == "MountainCarContinuous-v0"
    assert "env" in ConfigStore.instance().repo  # for whoever composes TorchRL's


def test_an_own_file_sets_and_the_command_line_has_the_last_word(call):
    mine = "defaults: [mpo, _self_]\nseed: 7\ngamma: 0.9\n"
    _, (config,), _, _ = call(*OWN_FILE, "seed=8", mine=mine)
    assert (config.seed, config.gamma, config.tau) == (8, 0.9, 0.005)


def test_a_preset_may_be_named_after_a_setting(call):
    code, (config,), *_ = call("seed=3", "--config-name", "tuned", "gamma=0.9")
    assert (code, config.seed, config.epsilon, config.gamma) == (0, 3, 0.5, 0.9)


def test_multirun_calls_once_a_value(call):
    code, configs, output, _ = call("--multirun", "seed=1,2")
    assert (code, [config.seed for config in configs]) == (0, [1, 2])
    assert output.count("mean_reward: -1.5") == 2


@pytest.mark.parametrize(
    ("arguments", "mine", "sentence"),
    [
        (["lerning_rate=1"], "", "'lerning_rate' is not a setting; the nearest one is 'learning_"),
        (["+epsilom=1"], "", "'epsilom' is not a setting; the nearest one is 'epsilon'."),
        (["epsilon=0"], "", "epsilon must be a number > 0, got 0.0."),
        (["seed=many"], "", "seed must be a whole number >= 0 and <= 2147483647: Value 'many'"),
        (["seed=1.5"], "", "seed must be a whole number >= 0 and <= 2147483647: Value '1.5'"),
        (["progress_bar=perhaps"], "", "progress_bar must be true or false: Value 'perhaps'"),
        (["total_timesteps=10"], "", "total_timesteps must be >= learning_starts (1000"),
        (["env=CartPole-v1"], "", "env 'CartPole-v1' must have continuous actions"),
        (["env=NoSuch-v0"], "", "env 'NoSuch-v0' cannot be made"),
        (["seed"], "", "'seed' cannot be read: write setting=value, and a value with other"),
        (["run_dir=größe"], "", "'run_dir=größe' cannot be read: write setting=value, and"),
        (["run_dir=a(1)"], "", "'run_dir=a(1)' cannot be read: write setting=value, and"),
        (["--config-name"], "", "--config-name must be followed by a name"),
        (["-cn", "seed=1"], "", "-cn must be followed by a name"),
        (["--config-name", "nowhere"], "", "Cannot find primary config 'nowhere'"),
        (OWN_FILE, "defaults: [mpo, _self_]\nepsilo: 1", "'epsilo' is not a setting; the nearest"),
        (OWN_FILE, "defaults: [mpo, _self_]\nseed: x", "seed must be a whole number"),
        (OWN_FILE, "seed: 1", "the YAML file must begin with the line 'defaults: [mpo, _self_]'."),
        ([*OWN_FILE, "seed=2"], "gamma: 0.9", "the YAML file must begin with the line 'defaults:"),
        (OWN_FILE, "seed: [", "the YAML file cannot be read: while parsing"),
    ],
)
def test_a_mistake_ends_in_one_sentence_on_stderr(call, arguments, mine, sentence):
    code, seen, output, errors = call(*arguments, mine=mine)
    assert (code, seen, output) == (2, [], "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith(f"error: {sentence}")


@pytest.mark.parametrize(
    "error", [NonFiniteError("step 3 brought a NaN."), OSError(28, "No space left on device")]
)
def test_a_run_that_cannot_go_on_ends_in_one_sentence(call, error):
    def fail(config):
        raise error

    code, _, output, errors = call(train=fail)
    assert (code, output) == (1, "")
    assert errors == f"error: {error}\n"


def test_a_fault_of_ours_keeps_its_traceback(call):
    def fail(config):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(train=fail)


def test_help_shows_settings_and_starts_nothing(call):
    code, seen, output, _ = call("--help")
    assert (code, seen) == (0, [])
    assert "n_action_samples" in output
    assert "[a whole number >= 1]" in output


if __name__ == "__main__":
    pytest.main([__file__])
