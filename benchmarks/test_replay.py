"""Replay of a million HalfCheetah transitions: its size, and the cost of a sample."""

from __future__ import annotations

from benchmarks.workloads import HALFCHEETAH, mpo_update
from mpo_torchrl.trainer import (
    MPOConfig,
    make_collector,
    make_env,
    make_loss,
    make_replay_buffer,
    transitions,
)

CAPACITY = 1_000_000


def test_replay(alternate, report) -> None:
    config = MPOConfig(env=HALFCHEETAH.env, buffer_size=CAPACITY)
    env = make_env(config.env)
    actor, loss = make_loss(env, config)
    collector = make_collector(env, actor, config)
    collected = transitions(next(iter(collector)), loss.in_keys, 0, CAPACITY)[:1]
    collector.shutdown()
    buffer = make_replay_buffer(config)
    for _ in range(CAPACITY // 10_000):
        buffer.extend(collected.expand(10_000))

    # Observation before and after, action and reward in float32; done and terminated.
    fields = CAPACITY * (4 * (2 * HALFCHEETAH.observation + HALFCHEETAH.action + 1) + 2)
    stored = buffer[:]
    assert stored.shape == (CAPACITY,)
    memory = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in stored.values(include_nested=True, leaves_only=True)
    }
    size = sum(memory.values())
    report(
        f"{HALFCHEETAH.env}: memory of 1e6 transitions / that of their fields",
        size / fields,
        at_most=1.3,
        detail=f"{size / 2**20:.0f} MiB, {fields / 2**20:.0f} MiB",
    )

    update, sample = alternate(mpo_update(HALFCHEETAH), buffer.sample, rounds=80)
    report(
        f"{HALFCHEETAH.env}: sampling 256 of them / our update",
        sample / update,
        at_most=0.05,
        detail=f"{sample * 1e3:.3f} ms, {update * 1e3:.2f} ms",
    )
