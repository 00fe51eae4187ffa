from __future__ import annotations

import pytest
import torch

from mpo_torchrl.trainer import MPOTrainer, ObservationNormalizer, make_replay_buffer
from mpo_torchrl.trainer.evaluation import load_policy
from tests.trainer.small import small_config
from tests.trainer.test_collection import made_batch


@pytest.mark.parametrize("pieces", [[100], [1, 99], [30, 1, 69]], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_statistics_are_those_of_all_observations_however_they_came(pieces, offset):
    observations = torch.randn(100, 3) * torch.tensor([0.5, 1.0, 20.0]) + offset
    normalizer = ObservationNormalizer(3)
    for piece in observations.split(pieces):
        normalizer.update(piece)
    exact = observations.double()
    torch.testing.assert_close(normalizer.mean, exact.mean(0))
    torch.testing.assert_close(normalizer.divisor, exact.std(0, correction=0).float())


def test_what_comes_out_has_mean_zero_and_stddev_one():
    normalizer = ObservationNormalizer(3)
    observations = torch.randn(2, 500, 3) * 7 - 3
    normalizer.update(observations)
    seen = normalizer(observations)
    assert seen.shape == (2, 500, 3) and seen.dtype == torch.float32
    torch.testing.assert_close(seen.mean((0, 1)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std((0, 1), correction=0), torch.ones(3))


def test_what_never_moves_is_not_blown_up():
    normalizer = ObservationNormalizer(1)
    normalizer.update(torch.full((10, 1), 3.0))
    assert normalizer(torch.tensor([3.001])).item() == pytest.approx(0.1, rel=1e-2)


def test_what_is_far_away_is_cut():
    normalizer = ObservationNormalizer(1)
    normalizer.update(torch.tensor([[-1.0], [1.0]]))
    assert normalizer(torch.tensor([[1e6], [-1e6]])).flatten().tolist() == [10.0, -10.0]


def test_at_first_nothing_is_changed():
    observation = torch.randn(4, 3)
    normalizer = ObservationNormalizer(3)
    normalizer.update(torch.empty(0, 3))
    assert torch.equal(normalizer(observation), observation)


# -- in a run -----------------------------------------------------------------------------


def test_replay_keeps_observations_and_gives_them_normalized():
    normalizer = ObservationNormalizer(3)
    buffer = make_replay_buffer(small_config(normalize_observation=True), normalizer)
    batch = made_batch(32)
    batch["observation"].mul_(5).add_(10)
    buffer.extend(batch.clone())
    torch.testing.assert_close(normalizer.mean, batch["observation"].double().mean(0))
    assert torch.equal(buffer.storage[:]["observation"], batch["observation"])
    everything = buffer[:]
    for key in ("observation", ("next", "observation")):
        torch.testing.assert_close(everything[key], normalizer(batch[key]))


def test_scaled_rewards_are_learned_from_and_unscaled_ones_kept():
    buffer = make_replay_buffer(small_config(reward_scale=0.1))
    batch = made_batch(32)
    buffer.extend(batch.clone())
    torch.testing.assert_close(buffer[:]["next", "reward"], 0.1 * batch["next", "reward"])
    assert torch.equal(buffer.storage[:]["next", "reward"], batch["next", "reward"])


def test_returns_are_shown_without_the_scale():
    plain, scaled = (
        MPOTrainer.from_config(small_config(reward_scale=scale)).evaluate()["eval_return_mean"]
        for scale in (1.0, 0.1)
    )
    assert plain == scaled


def test_statistics_come_from_training_and_stay_in_evaluation():
    trainer = MPOTrainer.from_config(small_config(normalize_observation=True))
    trainer.train()
    normalizer = trainer.policy.normalizer
    assert normalizer.count == 60
    torch.testing.assert_close(
        normalizer.mean, trainer.replay_buffer.storage[:]["observation"].double().mean(0)
    )
    trainer.evaluate()
    assert normalizer.count == 60


def test_a_saved_policy_takes_its_statistics_along(tmp_path):
    trainer = MPOTrainer.from_config(small_config(normalize_observation=True))
    trainer.train()
    trainer.save(tmp_path / "checkpoint.zip")
    observation = torch.randn(5, 3) * 3
    expected = trainer.policy(observation)
    loaded = MPOTrainer.load(tmp_path / "checkpoint.zip")
    assert loaded.policy.normalizer.count == 60
    assert torch.equal(loaded.policy(observation), expected)
    policy, _, _ = load_policy(tmp_path / "checkpoint.zip")
    assert torch.equal(policy(observation), expected)


def test_training_goes_on_with_the_statistics(tmp_path):
    trainer = MPOTrainer.from_config(small_config(normalize_observation=True))
    trainer.train()
    trainer.train(total_timesteps=100)
    assert trainer.policy.normalizer.count == 100


if __name__ == "__main__":
    pytest.main([__file__])
