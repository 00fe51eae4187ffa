"""One update: against rlox, SAC and the matrix products alone; its growth and its memory."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.workloads import (
    HALFCHEETAH,
    HIDDEN,
    NEEDS_COMPILER,
    PENDULUM,
    Products,
    Shape,
    Update,
    mpo_update,
    peak_memory,
    rlox_update,
    sac_update,
)
from mpo_torchrl.dual import ExactTemperature
from mpo_torchrl.trainer import update_loss

shapes = pytest.mark.parametrize("shape", [HALFCHEETAH, PENDULUM], ids=lambda shape: shape.env)


def times(ours: float, peer: float) -> str:
    return f"{ours * 1e3:.2f} ms, {peer * 1e3:.2f} ms"


modes = pytest.mark.parametrize("mode", ["eager", pytest.param("compiled", marks=NEEDS_COMPILER)])


def our_update(shape: Shape, mode: str) -> Update:
    """Ours as the recipe does it, with ``compile=false`` or ``compile=true``."""
    update = mpo_update(shape)
    update.loss = update_loss(update.loss, compile=mode == "compiled")
    return update


@shapes
@modes
def test_rlox(shape: Shape, mode: str, alternate, report) -> None:
    ours, peer = alternate(our_update(shape, mode), rlox_update(shape), rounds=25)
    name = f"{shape.env}: rlox's update / ours, {mode}"
    report(name, peer / ours, at_least=6, detail=times(ours, peer))


@shapes
@modes
def test_sac(shape: Shape, mode: str, alternate, report) -> None:
    ours, peer = alternate(our_update(shape, mode), sac_update(shape), rounds=80)
    name = f"{shape.env}: our update, {mode} / SAC's"
    report(name, ours / peer, at_most=0.75, detail=times(ours, peer))


@shapes
@modes
def test_roofline(shape: Shape, mode: str, alternate, report) -> None:
    products = Products(mpo_update(shape))
    ours, peer = alternate(our_update(shape, mode), products, rounds=80)
    detail = f"{times(ours, peer)}, {products.gigaflop:.2f} GFLOP"
    name = f"{shape.env}: our update, {mode} / its matrix products"
    report(name, ours / peer, at_most=1.5, detail=detail)


@shapes
@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("the E-step at the next state", {"e_step_critic": "next"}),
        ("the exact temperature", {"temperature": ExactTemperature(0.1)}),
    ],
    ids=["next", "exact"],
)
def test_option(shape: Shape, option: str, settings: dict[str, Any], alternate, report) -> None:
    ours, default = alternate(mpo_update(shape, **settings), mpo_update(shape), rounds=80)
    name = f"{shape.env}: update with {option} / the default"
    report(name, ours / default, detail=times(ours, default))


@shapes
@NEEDS_COMPILER
def test_compiled(shape: Shape, alternate, report) -> None:
    ours, eager = alternate(our_update(shape, "compiled"), our_update(shape, "eager"), rounds=80)
    name = f"{shape.env}: our update, compiled / eager"
    report(name, ours / eager, detail=times(ours, eager))


@shapes
@modes
def test_critics_alone(shape: Shape, mode: str, alternate, report) -> None:
    critics = mpo_update(shape)
    losses: Any = update_loss(critics.loss, compile=mode == "compiled", policy_delay=2)
    critics.loss = losses.critics
    ours, whole = alternate(critics, our_update(shape, mode), rounds=80)
    name = f"{shape.env}: update of the critics alone / of all parts, {mode}"
    report(name, ours / whole, detail=times(ours, whole))


@shapes
@pytest.mark.parametrize(
    "grown", [{"num_action_samples": 80}, {"batch_size": 1024}], ids=lambda grown: next(iter(grown))
)
def test_growth(shape: Shape, grown: dict[str, int], alternate, report) -> None:
    large, small = alternate(mpo_update(shape, **grown), mpo_update(shape), rounds=25)
    ((argument, value),) = grown.items()
    name = f"{shape.env}: growth of the update, {argument} {value // 4} to {value}"
    report(name, large / small, at_most=4.2, detail=times(large, small))


def test_memory(report) -> None:
    update = mpo_update(HALFCHEETAH, num_action_samples=80, batch_size=1024)
    # Scoring keeps two hidden layers of two critics for each of the actions.
    number = Products(update).scoring_dtype
    activations = 2 * 2 * 80 * 1024 * HIDDEN * number.itemsize
    peak = peak_memory(update)
    report(
        "HalfCheetah-v5: peak memory / activations of a scoring pass, N 80, batch 1024",
        peak / activations,
        at_most=2,
        detail=f"{peak / 2**20:.0f} MiB, {activations / 2**20:.0f} MiB in {number}",
    )
