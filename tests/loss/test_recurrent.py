"""Recurrent actors and critics in MPOLoss: against networks without memory, and step by step."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import OneHot
from torchrl.modules import GRUModule, ProbabilisticActor, set_recurrent_mode

from mpo_torchrl import DiscreteMPOLoss, MPOLoss
from mpo_torchrl.critic import CategoricalCritic
from mpo_torchrl.memory import BEFORE, Memory, remember, split
from mpo_torchrl.modules import (
    make_actor,
    make_critics,
    make_discrete_actor,
    make_recurrent_actor,
    make_recurrent_critics,
    make_torso,
)
from tests.loss.builders import SPEC, A, O, make_batch, seeded, total

H = 6
SHAPES = pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 5)], ids=str)
CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])


def make_sequences(*shape: int, dtype: torch.dtype = torch.float64) -> TensorDict:
    """Consecutive steps of which one in four ends its episode."""
    batch = make_batch(*shape, dtype=dtype)
    following = batch["next"]
    following["done"] |= following["terminated"]
    goes_on = ~following["done"][..., :-1, 0]
    following["observation"][..., :-1, :][goes_on] = batch["observation"][..., 1:, :][goes_on]
    batch["is_init"] = torch.zeros(*shape, 1, dtype=torch.bool)
    batch["is_init"][..., 1:, :] = following["done"][..., :-1, :]
    for key in ("actor_state", "actor_state_cell"):
        batch[key] = torch.randn(*shape, 1, H, dtype=dtype)
    batch["action_log_prob"] = torch.randn(*shape, dtype=dtype)
    return batch


def make_loss(cell: str = "gru", policy: str = "gaussian", **kwargs) -> MPOLoss:
    torch.manual_seed(0)
    size = {"state_size": H, "cell": cell, "num_cells": (8,)}
    actor = make_recurrent_actor(O, SPEC, policy=policy, **size)
    with torch.no_grad():  # the policy shall differ between states
        actor[0].module[1].module[0][-1].weight.mul_(100.0)
    critics = make_recurrent_critics(O, SPEC, **size)
    return MPOLoss(actor, critics, num_action_samples=5, num_bootstrap_samples=3, **kwargs).double()


NETWORKS = ("actor_network", "qvalue_network")
FIXED = {"gru": {1: -1e4}, "lstm": {0: 1e4, 1: -1e4, 3: 1e4}}  # gates that are then 0 or 1
LAYER = 2  # what is left: n of a GRU, g of an LSTM


def networks(loss: MPOLoss) -> dict[str, TensorDict]:
    """All sets of parameters, targets included, by name."""
    names = [f"{who}{name}_params" for name in NETWORKS for who in ("", "target_")]
    return {name: loss._modules[name] for name in names if name in loss._modules}


def gates(key: tuple, value: torch.Tensor) -> torch.Tensor:
    """A weight ``[..., G H, O]`` or bias ``[..., G H]`` with its gates first."""
    dim = value.ndim - (2 if "weight" in key[-1] else 1)
    return value.unflatten(dim, (-1, H)).movedim(dim, 0)


def memoryless(loss: MPOLoss, cell: str) -> MPOLoss:
    """Sets the gates so that nothing is kept: the state is a layer of the observation alone."""
    for params in networks(loss).values():
        for key, value in params.data.items(True, True):
            if key[-1] in ("weight_hh_l0", "bias_hh_l0"):
                value.zero_()
            elif key[-1] in ("weight_ih_l0", "bias_ih_l0"):
                for gate, bias in FIXED[cell].items():
                    gates(key, value)[gate].fill_(bias if "bias" in key[-1] else 0.0)
    return loss


def without_memory(loss: MPOLoss, cell: str, policy: str = "gaussian", **kwargs) -> MPOLoss:
    """The same loss with layers in place of the torsos that :func:`memoryless` made."""
    activations = [nn.Tanh()] * {"gru": 1, "lstm": 2}[cell]

    def layer(features: str) -> TensorDictModule:
        network = nn.Sequential(nn.Linear(O, H), *activations)
        return TensorDictModule(network, ["observation"], [features])

    head = make_actor(H, SPEC, num_cells=(8,), policy=policy, in_key="actor_features")
    actor = ProbabilisticActor(
        TensorDictSequential(layer("actor_features"), head[0]),
        in_keys=["loc", "scale"],
        spec=SPEC,
        distribution_class=head[-1].distribution_class,
        distribution_kwargs=head[-1].distribution_kwargs,
    )
    critics = [
        TensorDictSequential(layer("critic_features"), critic)
        for critic in make_critics(H, SPEC, num_cells=(8,), in_key="critic_features")
    ]
    plain = MPOLoss(actor, critics, num_action_samples=5, num_bootstrap_samples=3, **kwargs)
    plain = plain.double()
    for name, params in networks(plain).items():
        for key, value in params.data.items(True, True):
            value.copy_(corresponding(networks(loss)[name].data, key, cell))
    return plain


def corresponding(own: TensorDict, key: tuple, cell: str) -> torch.Tensor:
    """What stands in a recurrent network for an entry of the plain one."""
    recurrent = (*key[:-3], cell, f"{key[-1]}_ih_l0")
    if recurrent not in own.keys(True):
        return own.get(key)
    return gates(recurrent, own.get(recurrent))[LAYER]


@SHAPES
@CELLS
@pytest.mark.parametrize("settings", [{}, {"e_step_critic": "next"}, {"delay_actor": False}])
def test_without_recurrence_it_is_the_network_without_memory(shape, cell, settings):
    loss = memoryless(make_loss(cell, **settings), cell)
    plain, batch = without_memory(loss, cell, **settings), make_sequences(*shape)
    assert_equal_losses_and_gradients(loss, plain, batch, cell)


@CELLS
def test_so_it_is_for_squashed_policies_and_retrace(cell):
    loss = memoryless(make_loss(cell, "tanh_normal"), cell)
    plain, batch = without_memory(loss, cell, "tanh_normal"), make_sequences(3, 7)
    for one in (loss, plain):
        one.make_value_estimator("retrace", gamma=0.9, lmbda=0.8)
    assert_equal_losses_and_gradients(loss, plain, batch, cell)


def assert_equal_losses_and_gradients(loss, plain, batch, cell):
    found, expected = (seeded(one, batch.copy()) for one in (loss, plain))
    for key in expected.keys():
        torch.testing.assert_close(found[key], expected[key])
    total(found).backward()
    total(expected).backward()
    for name in NETWORKS:
        params, own = (networks(one)[f"{name}_params"] for one in (plain, loss))
        gradients = own.apply(lambda p: p.grad)
        for key, parameter in params.items(True, True):
            if parameter.requires_grad:
                assert parameter.grad.any()
                torch.testing.assert_close(corresponding(gradients, key, cell), parameter.grad)


def step_by_step(torso, batch: TensorDict, key: str):
    """Features at each step and in what follows it, ``[B, T, H]``, one call a step."""
    states = [key, f"{key}_cell"][: len(torso.in_keys) - 2]
    now, after = [], []
    kept = {k: batch[k][:, 0] for k in states}
    for t in range(batch.shape[1]):
        step = TensorDict(observation=batch["observation"][:, t], batch_size=batch.shape[:1])
        step["is_init"] = batch["is_init"][:, t]
        torso(step.update(kept))
        now.append(step["features"])
        kept = {k: step["next", k] for k in states}
        step = TensorDict(observation=batch["next", "observation"][:, t], batch_size=step.shape)
        step["is_init"] = torch.zeros_like(batch["is_init"][:, t])
        after.append(torso(step.update(kept))["features"])
    return torch.stack(now, 1), torch.stack(after, 1)


@CELLS
def test_a_memory_is_what_single_steps_remember_now_and_after(cell):
    torch.manual_seed(0)
    torso = make_torso(O, H, cell=cell, state_key="actor_state").double()
    batch = make_sequences(20, 9)
    now, after = step_by_step(torso, batch, "actor_state")
    memory = Memory([torso], stored=True)
    known = remember(batch, ["observation", *memory.state_keys], "done")
    torch.testing.assert_close(memory(known, "")["features"], now)
    torch.testing.assert_close(memory(known["next"], "")["features"], after)


def test_a_stack_of_torsos_is_one_memory():
    torch.manual_seed(0)
    first = make_torso(O, H, out_key="between", state_key="first")
    second = make_torso(H, H, in_key="between", state_key="second")
    head = TensorDictModule(nn.Linear(H, 1), ["features"], ["value"])
    network = TensorDictSequential(TensorDictSequential(first, second), head)
    torso, rest = split(network)
    assert [part.prefix for part in torso] == ["module.0.module.0.", "module.0.module.1."]
    assert [part.prefix for part in rest] == ["module.1."]
    memory = Memory([part.module for part in torso], stored=False)
    assert (memory.state_keys, memory.in_keys) == (["first", "second"], ["observation"])
    batch = make_sequences(2, 5, dtype=torch.float32)
    with set_recurrent_mode(True):
        expected = network(batch.select("observation", "is_init"))["features"]
    torch.testing.assert_close(memory(batch, "")["features"], expected)


def test_the_end_of_an_episode_is_the_end_of_what_is_remembered():
    loss, batch = make_loss(reduction="none"), make_sequences(4, 8)
    for flag in ("done", "terminated"):
        batch["next", flag][:] = False
        batch["next", flag][:, 3] = True
    batch["is_init"][:] = False
    batch["is_init"][:, 4] = True
    before = seeded(loss, batch.copy())
    batch["observation"][:, :4] += 1.0
    batch["actor_state"] += 1.0
    after = seeded(loss, batch.copy())
    for key in ("loss_qvalue", "loss_actor", "loss_temperature"):
        torch.testing.assert_close(before[key][:, 4:], after[key][:, 4:])
        assert not torch.isclose(before[key][:, :4], after[key][:, :4]).any()


@CELLS
@pytest.mark.parametrize("burn_in", [0, 3])
def test_an_episode_that_begins_with_what_is_learned_remembers_nothing(cell, burn_in):
    loss, batch = make_loss(cell, burn_in=burn_in), make_sequences(4, 8)
    batch["is_init"][:, burn_in] = True
    expected = seeded(loss, batch.copy())
    for key in ("observation", "actor_state", "actor_state_cell"):
        batch[key] = batch[key].clone()
        batch[key][:, : burn_in + (key != "observation")] += 1.0
    torch.testing.assert_close(seeded(loss, batch), expected)


def test_an_episode_that_nobody_said_began_begins_all_the_same():
    loss, batch = make_loss(), make_sequences(20, 8)
    expected = seeded(loss, batch.copy())
    batch["is_init"][:] = False
    torch.testing.assert_close(seeded(loss, batch)["loss_qvalue"], expected["loss_qvalue"])


def test_an_episode_that_nobody_said_ended_ends_where_the_next_begins():
    loss, batch = make_loss(), make_sequences(20, 8)
    batch["next", "terminated"][:] = False
    expected = seeded(loss, batch.copy())
    batch["next", "done"] = torch.zeros_like(batch["next", "done"])
    torch.testing.assert_close(seeded(loss, batch)["loss_qvalue"], expected["loss_qvalue"])


# -- burning in ---------------------------------------------------------------------------


def test_steps_that_burn_in_receive_no_gradient_and_have_their_say():
    loss, batch = make_loss(burn_in=3), make_sequences(4, 8)
    for flag in ("done", "terminated"):
        batch["next", flag][:] = False
    batch["is_init"][:] = False
    batch["observation"].requires_grad_()
    value = total(seeded(loss, batch.copy()))
    (gradient,) = torch.autograd.grad(value, batch["observation"])
    assert not gradient[:, :3].any()
    assert gradient[:, 3:].any(-1).all()
    moved = batch.detach().copy()
    moved["observation"] = moved["observation"].clone()
    moved["observation"][:, 0] += 1.0
    assert not torch.isclose(total(seeded(loss, moved)), value)


def test_with_the_actors_own_state_nothing_is_left_for_it_to_burn_in():
    loss = make_loss(burn_in=3)
    batch = make_sequences(4, 8)
    states = Memory([loss.actor_network[0].module[0]], stored=True)
    with loss.actor_network_params.to_module(loss.actor_network):
        known = states.burn_in(batch[:, :3])["actor_state"]
    later = batch[:, 3:].clone()
    later["actor_state"][:, 0] = known
    torch.manual_seed(1)
    found = loss.actor_loss(batch.copy())[1]["policy_stddev"]
    loss._memories.burn_in = 0
    torch.manual_seed(1)
    torch.testing.assert_close(found, loss.actor_loss(later)[1]["policy_stddev"])


def test_each_set_of_parameters_burns_in_its_own_state():
    loss, batch = make_loss(burn_in=2), make_sequences(4, 8)
    with torch.no_grad():
        for parameter in loss.actor_network_params.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    known = loss._prepared(batch)["burnt_in"]
    names = ["actor_network", "target_actor_network"]
    names += [f"{who}qvalue_network_{i}" for who in ("", "target_") for i in (0, 1)]
    assert set(known.keys()) == set(names)
    actor, target = (known[name, "actor_state"] for name in names[:2])
    assert not torch.isclose(actor, target).any()
    assert torch.equal(
        known["qvalue_network_0", "critic_state"], known["target_qvalue_network_0", "critic_state"]
    )


def test_steps_that_burn_in_have_the_priority_of_the_most_urgent_step_after_them():
    loss, batch = make_loss(burn_in=3), make_sequences(4, 8)
    loss(batch)
    burnt_in, learned = batch["td_error"].split([3, 5], -1)
    assert learned.unique().numel() == 20
    assert torch.equal(burnt_in, learned.amax(-1, keepdim=True).expand(4, 3))


@pytest.mark.parametrize("burn_in", [0, 2])
def test_each_part_alone_is_that_of_the_whole(burn_in):
    loss, batch = make_loss(burn_in=burn_in), make_sequences(4, 8)
    improved = seeded(loss.e_step, batch.copy())["e_step"]
    assert improved["action"].shape == (4, 8 - burn_in, 5, A)
    whole = seeded(loss, batch.copy())
    assert torch.equal(seeded(loss.temperature_loss, batch.copy())[0], whole["loss_temperature"])
    assert torch.equal(seeded(loss.actor_loss, batch.copy())[0], whole["loss_actor"])


# -- cost, other critics, what is refused -------------------------------------------------


def test_a_torso_runs_as_often_for_many_actions_as_for_one(monkeypatch):
    calls = []
    forward = GRUModule.forward

    def count(self, tensordict):
        calls.append(tensordict.numel())
        return forward(self, tensordict)

    monkeypatch.setattr(GRUModule, "forward", count)
    loss, batch = make_loss(), make_sequences(4, 8)
    counts = []
    for number in (1, 50):
        loss._e_step.num_action_samples = loss.num_bootstrap_samples = number
        calls.clear()
        loss(batch.copy())
        counts.append(list(calls))
    assert counts[0] == counts[1]
    assert max(counts[0]) <= 4 * (8 + 8)


def test_a_distributional_critic_may_be_recurrent():
    critics = make_recurrent_critics(O, SPEC, state_size=H, num_cells=(8,), num_outputs=11)
    actor = make_recurrent_actor(O, SPEC, state_size=H, num_cells=(8,))
    loss = MPOLoss(actor, CategoricalCritic(critics, torch.linspace(-5, 5, 11)), burn_in=1)
    assert loss(make_sequences(3, 5, dtype=torch.float32))["loss_qvalue"].isfinite()


@pytest.mark.parametrize("burn_in", [0, 3])
@CELLS
def test_one_recurrent_critic_is_as_good_as_two_that_are_equal(cell, burn_in):
    size = {"state_size": H, "cell": cell, "num_cells": (8,)}
    actor = make_recurrent_actor(O, SPEC, **size)
    (critic,) = make_recurrent_critics(O, SPEC, num_critics=1, **size)
    one, two = (
        MPOLoss(deepcopy(actor), critics, num_action_samples=5, burn_in=burn_in)
        for critics in ([deepcopy(critic)], [critic, deepcopy(critic)])
    )
    batch = make_sequences(2, 7, dtype=torch.float32)
    found, expected = (seeded(loss, batch.clone()) for loss in (one, two))
    for key in ("loss_actor", "loss_temperature", "loss_alpha"):
        torch.testing.assert_close(found[key], expected[key])
    torch.testing.assert_close(2 * found["loss_qvalue"], expected["loss_qvalue"])


def test_features_that_a_batch_holds_are_not_taken_for_those_of_a_torso():
    loss, batch = make_loss(), make_sequences(2, 7)
    expected = seeded(loss, batch.clone())
    for key in ("actor_features", "critic_features"):
        batch[key] = torch.full((2, 7, H), torch.nan, dtype=torch.float64)
        batch["next", key] = batch[key]
    found = seeded(loss, batch)
    for key in expected.keys():
        torch.testing.assert_close(found[key], expected[key], msg=key)


def test_an_actor_may_remember_where_critics_do_not():
    actor = make_recurrent_actor(O, SPEC, state_size=H, num_cells=(8,))
    loss = MPOLoss(actor, make_critics(O, SPEC, num_cells=(8,)))
    losses = loss(make_sequences(3, 5, dtype=torch.float32))
    total(losses).backward()
    assert actor[0].module[0].gru.weight_hh_l0.grad.any()


@pytest.mark.parametrize("recurrent", ["actor", "critics"])
def test_one_of_them_may_burn_in_alone(recurrent):
    torch.manual_seed(0)
    size = {"state_size": H, "num_cells": (8,)}
    actor, critics = make_actor(O, SPEC, num_cells=(8,)), make_critics(O, SPEC, num_cells=(8,))
    if recurrent == "actor":
        actor = make_recurrent_actor(O, SPEC, **size)
    else:
        critics = make_recurrent_critics(O, SPEC, **size)
    loss, batch = MPOLoss(actor, critics, burn_in=2), make_sequences(3, 5, dtype=torch.float32)
    total(loss(batch)).backward()
    assert all(p.grad is not None for p in loss.network_parameters())
    burnt_in, learned = batch["td_error"].split([2, 3], -1)
    assert torch.equal(burnt_in, learned.amax(-1, keepdim=True).expand(3, 2))


def test_what_it_reads_is_named():
    names = ["observation", "actor_state", "is_init", "action", ("next", "observation")]
    flags = [("next", key) for key in ("reward", "done", "terminated")]
    loss, batch = make_loss(), make_sequences(3, 5)
    assert loss.in_keys == [*names, *flags]
    del batch["actor_state"]
    with pytest.raises(KeyError, match="the batch has no entry 'actor_state'"):
        loss(batch)


@pytest.mark.parametrize("missing", ["is_init", ("next", "done")], ids=str)
def test_a_batch_is_left_as_it_was_but_for_its_priority(missing):
    loss, batch = make_loss(burn_in=1), make_sequences(20, 5)
    batch.set(missing, torch.zeros_like(batch.get(missing)))  # it follows from the other flag
    before = batch.clone()
    loss(batch)
    assert set(batch.keys(True)) == {*before.keys(True), "td_error"}
    assert BEFORE not in batch["next"].keys()
    assert (batch.select(*before.keys(True, True)) == before).all()


def test_a_torso_that_reads_actions_is_refused():
    torso = make_torso(A, H, in_key="action", out_key="critic_features", state_key="critic_state")
    head = make_critics(H, SPEC, num_critics=1, in_key="critic_features")[0]
    with pytest.raises(ValueError, match="the recurrent part of a critic must not read 'action'"):
        MPOLoss(make_actor(O, SPEC), TensorDictSequential(torso, head), num_qvalue_nets=1)


def test_burning_in_needs_something_recurrent_and_steps_that_are_left():
    with pytest.raises(ValueError, match="burn_in must be .* 0 unless a network is recurrent"):
        MPOLoss(make_actor(O, SPEC), make_critics(O, SPEC), burn_in=1)
    with pytest.raises(ValueError, match=r"more than burn_in=5 steps, the batch is \[3, 5\]"):
        make_loss(burn_in=5)(make_sequences(3, 5))


def test_the_discrete_loss_refuses_recurrent_critics():
    spec = OneHot(2)
    critics = make_recurrent_critics(O, SPEC, num_outputs=2)
    with pytest.raises(ValueError, match="DiscreteMPOLoss cannot train recurrent networks"):
        DiscreteMPOLoss(make_discrete_actor(O, spec), critics)


def test_a_recurrent_module_alone_is_refused():
    with pytest.raises(ValueError, match="must have a layer after its last recurrent module GRU"):
        MPOLoss(make_actor(O, SPEC), make_torso(O, 1, out_key="state_action_value"))


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match=r"cell must be one of \['gru', 'lstm'\], got 'rnn'"):
        make_torso(3, 4, cell="rnn")


if __name__ == "__main__":
    pytest.main([__file__])
