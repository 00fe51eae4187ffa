from __future__ import annotations

import inspect
import math

import pytest

from mpo_torchrl.trainer import SettingError
from recipes import sac_to_mpo


@pytest.mark.parametrize("algorithm", ["sac", "mpo"])
def test_the_same_loop_trains_both(algorithm):
    settings = sac_to_mpo.Settings(
        algorithm=algorithm, total_timesteps=60, learning_starts=40, hidden=16, batch_size=16
    )
    episode_return = sac_to_mpo.train(settings)
    assert math.isfinite(episode_return)
    assert episode_return < 0


def test_another_algorithm_is_refused():
    with pytest.raises(SettingError, match="algorithm must be mpo or sac, got 'ppo'"):
        sac_to_mpo.train(sac_to_mpo.Settings(algorithm="ppo"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("steps_per_batch", 0), ("seed", -1), ("hidden", 0), ("learning_starts", 10_001)],
)
def test_a_number_out_of_its_range_is_named(setting, value):
    with pytest.raises(SettingError, match=f"^{setting} must be .*, got {value}"):
        sac_to_mpo.train(sac_to_mpo.Settings(**{setting: value}))


def test_help_names_every_setting(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sac_to_mpo.py", "--help"])
    sac_to_mpo.main()
    output = capsys.readouterr().out
    assert all(f"\n  {name} " in output for name in vars(sac_to_mpo.Settings()))


def test_the_algorithms_differ_in_the_loss_and_its_keys_alone():
    sac, mpo = (inspect.getsource(make) for make in (sac_to_mpo.make_sac, sac_to_mpo.make_mpo))
    loss, keys, last = (line.replace("SAC", "MPO") for line in sac.splitlines()[-3:])
    assert mpo.splitlines()[-3:] == [loss, keys.replace("]", ', "loss_temperature"]'), last]


if __name__ == "__main__":
    pytest.main([__file__])
