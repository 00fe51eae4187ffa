"""MPOLoss on agents that act side by side: keys such as ``("agents", "action")``."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import distributions as d
from torch import nn
from torchrl.data import Bounded, Categorical, Composite, OneHot, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    IndependentNormal,
    MultiAgentMLP,
    OneHotCategorical,
    ProbabilisticActor,
    TanhNormal,
)
from torchrl.objectives import SoftUpdate

from mpo_torchrl import DiscreteMPOLoss, MPOLoss
from tests.loss import builders
from tests.loss.builders import A, O, loss_entries, seeded, total

AGENTS = 3
OBSERVATION, ACTION = ("agents", "observation"), ("agents", "action")
VALUE, REWARD = ("agents", "state_action_value"), ("agents", "reward")
LOSSES = ("loss_qvalue", "loss_temperature", "loss_actor", "loss_alpha")


def network(in_features: int, out_features: int, share: bool, central: bool) -> MultiAgentMLP:
    return MultiAgentMLP(
        in_features,
        out_features,
        AGENTS,
        centralized=central,
        share_params=share,
        num_cells=[8],
        depth=1,
    )


def spec_of(action: Any) -> Composite:
    return Composite(agents=Composite(action=action, shape=(AGENTS,)))


def make_actor(
    share: bool = True, distribution: type = TanhNormal, low: Any = -1.0, high: Any = 1.0
) -> ProbabilisticActor:
    parameters = [("agents", "loc"), ("agents", "scale")]
    body = nn.Sequential(network(O, 2 * A, share, False), NormalParamExtractor())
    return ProbabilisticActor(
        TensorDictModule(body, [OBSERVATION], parameters),
        in_keys=parameters,
        out_keys=[ACTION],
        distribution_class=distribution,
        spec=spec_of(Bounded(low, high, (AGENTS, A))),
    )


def make_critic(share: bool = True, central: bool = True) -> TensorDictModule:
    body = network(O + A, 1, share, central)
    return TensorDictModule(body, [OBSERVATION, ACTION], [VALUE])


def make_loss(actor: Any = None, critic: Any = None, team: bool = True, **settings: Any) -> MPOLoss:
    critic = critic or [make_critic(), make_critic()]
    loss = MPOLoss(actor or make_actor(), critic, **{"num_action_samples": 5, **settings})
    loss.set_keys(state_action_value=VALUE, reward="reward" if team else REWARD)
    return loss


def make_batch(*shape: int, team: bool = True) -> TensorDict:
    batch = TensorDict(batch_size=shape)
    batch[ACTION] = 2 * torch.rand(*shape, AGENTS, A) - 1
    batch[OBSERVATION] = torch.randn(*shape, AGENTS, O)
    batch["next", "agents", "observation"] = torch.randn(*shape, AGENTS, O)
    batch["next", "terminated"] = torch.rand(*shape, 1) < 0.25
    batch["next", "done"] = batch["next", "terminated"].clone()
    reward = torch.randn(*shape, 1) if team else torch.randn(*shape, AGENTS, 1)
    batch.set(("next", "reward") if team else ("next", *REWARD), reward)
    return batch


@pytest.mark.parametrize("team", [True, False], ids=["team reward", "own rewards"])
@pytest.mark.parametrize("central", [True, False], ids=["central", "local"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("shape", [(4,), (2, 3), (1,)], ids=str)
def test_every_agent_is_a_state_of_its_own(shape, share, central, team) -> None:
    critics = [make_critic(share, central), make_critic(share, central)]
    loss = make_loss(make_actor(share), critics, team)
    batch = make_batch(*shape, team=team)
    losses = loss(batch)
    total(losses).backward()
    trained = [p for p in loss.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert batch["td_error"].shape == (*shape, AGENTS)
    improved = loss.e_step(batch)["e_step"]
    assert improved["action"].shape == (*shape, AGENTS, 5, A)
    assert improved["weight"].shape == (*shape, AGENTS, 5)


@pytest.mark.parametrize("e_step_critic", ["online", "target", "next"])
@pytest.mark.parametrize("num_qvalue_nets", [1, 2])
def test_a_critic_that_is_expanded_serves_agents_too(num_qvalue_nets, e_step_critic) -> None:
    actor = make_actor(distribution=IndependentNormal)  # with a penalty
    settings = {"num_qvalue_nets": num_qvalue_nets, "e_step_critic": e_step_critic}
    losses = make_loss(actor, make_critic(share=False), **settings)(make_batch(4))
    assert total(losses).isfinite()


def test_agents_with_one_local_network_are_a_batch_of_states() -> None:
    actor = builders.make_actor(in_key=OBSERVATION, out_key=ACTION)
    keys = {"in_key": OBSERVATION, "action_key": ACTION, "out_key": VALUE}
    critics = [builders.make_critic(**keys), builders.make_critic(**keys)]
    loss = make_loss(actor, critics, team=False)
    loss.set_keys(done=("agents", "done"), terminated=("agents", "terminated"))
    flat = builders.make_batch(4 * AGENTS, names={
        name: ("agents", name) for name in ("observation", "action", "reward", "done", "terminated")
    })  # fmt: skip
    batch = flat.reshape(4, AGENTS)
    batch.batch_size = [4]
    found, expected = seeded(loss, batch), seeded(loss, flat)
    torch.testing.assert_close(loss_entries(found), loss_entries(expected))


def test_agents_in_another_order_have_their_losses_in_that_order() -> None:
    loss = make_loss(critic=[make_critic(central=False) for _ in range(2)], team=False,
                     reduction="none")  # fmt: skip
    batch = loss.e_step(make_batch(4, team=False))
    batch["next", "terminated"].fill_(True)  # no value that depends on draws
    order = torch.tensor([2, 0, 1])
    permuted = batch.clone()
    permuted["agents"] = batch["agents"].apply(lambda x: x[:, order])
    permuted["next", "agents"] = batch["next", "agents"].apply(lambda x: x[:, order])
    permuted["e_step"] = batch["e_step"].apply(lambda x: x[:, order])
    losses, found = loss(batch), loss(permuted)
    for key in LOSSES:
        assert losses[key].shape == (4, AGENTS)
        torch.testing.assert_close(found[key], losses[key][:, order])


@pytest.mark.parametrize("name", ["loss_actor", "loss_qvalue"])
def test_an_agents_loss_trains_that_agent_alone(name: str) -> None:
    loss = make_loss(make_actor(share=False), [make_critic(False), make_critic(False)],
                     reduction="none")  # fmt: skip
    params = getattr(loss, f"{name.removeprefix('loss_')}_network_params", None)
    leaves = list((loss.actor_network_params if name == "loss_actor" else params).parameters())
    gradients = torch.autograd.grad(loss(make_batch(6))[name][:, 1].sum(), leaves)
    for gradient in gradients:
        rows = gradient.movedim(gradient.shape.index(AGENTS), 0)  # an agent each
        moved = [bool(row.abs().sum() > 0) for row in rows]
        assert moved == [False, True, False]


def test_the_reward_of_the_team_is_that_of_every_agent() -> None:
    batch = make_batch(4)
    own = batch.clone()
    own["next", "agents", "reward"] = batch["next", "reward"].unsqueeze(1).expand(4, AGENTS, 1)
    loss = make_loss()
    found = seeded(loss, batch)
    loss.set_keys(reward=REWARD)
    assert (loss_entries(found)["loss_qvalue"] == seeded(loss, own)["loss_qvalue"]).all()
    assert batch["next", "reward"].shape == (4, 1)  # the batch is left as it was


def test_returns_over_time_are_those_of_each_agent() -> None:
    loss = make_loss(critic=[make_critic(central=False) for _ in range(2)], team=False,
                     delay_actor=True)  # fmt: skip
    loss.make_value_estimator("tdlambda", gamma=0.9, lmbda=0.5)
    batch = make_batch(2, 5, team=False)
    loss.target_qvalue_network_params.data.zero_()  # no value that depends on draws
    checked = loss._checked(batch)
    target = loss._value_target(checked, None)
    for agent in range(AGENTS):
        alone = TensorDict(batch_size=(2, 5))
        alone["next"] = TensorDict(
            reward=batch["next", "agents", "reward"][:, :, agent],
            done=batch["next", "done"],
            terminated=batch["next", "terminated"],
            batch_size=(2, 5),
        )
        estimator = deepcopy(loss.value_estimator)
        estimator.set_keys(reward="reward")
        expected = estimator.value_estimate(alone, next_value=torch.zeros(2, 5, 1))
        torch.testing.assert_close(target[:, :, agent], expected.squeeze(-1))


def test_steps_to_the_next_observation_are_those_of_every_agent() -> None:
    loss, batch = make_loss(), make_batch(4)
    loss.make_value_estimator(gamma=0.5)
    batch["steps_to_next_obs"] = torch.tensor([[1], [2], [3], [1]])
    each = batch.clone()
    each["steps_to_next_obs"] = batch["steps_to_next_obs"].unsqueeze(1).expand(4, AGENTS, 1)
    found, expected = seeded(loss, batch), seeded(loss, each)
    torch.testing.assert_close(found["loss_qvalue"], expected["loss_qvalue"])


def test_masked_states_and_weights_count_for_all_their_agents() -> None:
    loss, batch = make_loss(reduction="sum"), make_batch(4)
    batch["next", "terminated"].fill_(True)
    each = make_loss(reduction="none")
    each.load_state_dict(loss.state_dict())
    expected = each(batch.clone())["loss_qvalue"].sum(-1)  # [B]
    batch["priority_weight"] = torch.tensor([1.0, 2.0, 0.0, 0.5])
    weighted = loss(batch.clone())["loss_qvalue"]
    torch.testing.assert_close(weighted, (expected * batch["priority_weight"]).sum())
    del batch["priority_weight"]
    batch[OBSERVATION][2] = torch.nan
    batch["collector", "mask"] = torch.tensor([True, True, False, True])
    torch.testing.assert_close(loss(batch)["loss_qvalue"], expected[[0, 1, 3]].sum())


def test_agents_may_have_weights_of_their_own() -> None:
    critics = [make_critic(central=False) for _ in range(2)]
    batch, each = make_batch(4), make_loss(critic=critics, reduction="none")
    expected = seeded(each, batch.clone())["loss_qvalue"]  # [B, n]
    batch["priority_weight"] = torch.rand(4, AGENTS)
    loss = make_loss(critic=critics, reduction="sum")
    loss.load_state_dict(each.state_dict())
    found = seeded(loss, batch.clone())["loss_qvalue"]
    torch.testing.assert_close(found, (expected * batch["priority_weight"]).sum())


@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=str)
def test_one_agent_has_the_weight_of_its_transition(shape: tuple) -> None:
    spec, names = Bounded(-1.0, 1.0, shape=(A,)), {"in_key": OBSERVATION, "action_key": ACTION}
    actor = builders.mpo_modules.make_actor(O, spec, in_key=OBSERVATION, out_key=ACTION)
    loss = MPOLoss(actor, builders.mpo_modules.make_critics(O, spec, **names))
    batch = builders.make_batch(*shape)
    for key in ("observation", "action", ("next", "observation")):
        outer, inner = (("next",), key[1]) if isinstance(key, tuple) else ((), key)
        batch[(*outer, "agents", inner)] = batch.pop(key).unsqueeze(-2)
    batch["priority_weight"] = torch.rand(shape)
    found = seeded(loss, batch)["loss_qvalue"]
    batch["priority_weight"] = batch["priority_weight"].unsqueeze(-1)
    torch.testing.assert_close(found, seeded(loss, batch)["loss_qvalue"])


@pytest.mark.parametrize("hooked", [False, True], ids=["chain", "hooked"])
def test_critics_may_read_what_agents_share(hooked: bool) -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2 + A, 1)

        def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            state = state.unsqueeze(-2).expand(*action.shape[:-1], 2)
            return self.layer(torch.cat([state, action], -1))

    critics = [TensorDictModule(Scores(), ["state", ACTION], [VALUE]) for _ in range(2)]
    for critic in critics if hooked else ():
        critic.register_forward_hook(lambda module, args, output: None)
    batch = make_batch(2, 3)
    batch["state"], batch["next", "state"] = torch.randn(2, 3, 2), torch.randn(2, 3, 2)
    assert total(make_loss(critic=critics)(batch)).isfinite()


def test_copies_keep_what_agents_do_not_share() -> None:
    critics = [make_critic(False), make_critic(False)]
    loss, batch = make_loss(make_actor(False), critics), make_batch(4)
    expected = seeded(loss, batch.clone())
    other = make_loss(make_actor(False), [make_critic(False), make_critic(False)])
    other.load_state_dict(loss.state_dict())
    for copied in (deepcopy(loss), other):
        assert (seeded(copied, batch.clone()) == expected).all()


CHOICES = {
    "one-hot": (OneHotCategorical, OneHot(4, (AGENTS, 4))),
    "whole numbers": (d.Categorical, Categorical(4, (AGENTS,))),
    "in a column": (d.Categorical, Categorical(4, (AGENTS, 1))),
}


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1,)], ids=str)
@pytest.mark.parametrize("team", [True, False], ids=["team reward", "own rewards"])
@pytest.mark.parametrize("choice", CHOICES)
def test_discrete_agents_are_states_of_their_own_too(choice: str, team: bool, shape: tuple) -> None:
    distribution, spec = CHOICES[choice]
    actor = ProbabilisticActor(
        TensorDictModule(network(O, 4, True, False), [OBSERVATION], [("agents", "logits")]),
        in_keys=[("agents", "logits")],
        out_keys=[ACTION],
        distribution_class=distribution,
        spec=spec_of(spec),
    )
    values = ("agents", "action_value")
    critics = [
        TensorDictModule(network(O, 4, True, True), [OBSERVATION], [values]) for _ in range(2)
    ]
    loss = DiscreteMPOLoss(actor, critics)
    loss.set_keys(state_action_value=values, reward="reward" if team else REWARD)
    batch = make_batch(*shape, team=team)
    batch[ACTION] = spec.rand(shape)
    batch["priority_weight"] = torch.ones(shape)
    total(loss(batch)).backward()
    assert all(p.grad is not None for p in loss.parameters() if p.requires_grad)
    assert batch["td_error"].shape == (*shape, AGENTS)


def test_one_discrete_agent_has_the_weight_of_its_transition() -> None:
    actor = ProbabilisticActor(
        TensorDictModule(nn.Linear(O, 4), [("data", "observation")], [("data", "logits")]),
        in_keys=[("data", "logits")],
        out_keys=[("data", "action")],
        distribution_class=d.Categorical,
    )
    critics = [
        TensorDictModule(nn.Linear(O, 4), [("data", "observation")], ["action_value"])
        for _ in range(2)
    ]
    loss = DiscreteMPOLoss(actor, critics)
    one = TensorDict(
        data=TensorDict(observation=torch.randn(1, O), action=torch.tensor([2]), batch_size=1),
        next=TensorDict(
            data=TensorDict(observation=torch.randn(1, O), batch_size=1),
            reward=torch.randn(1, 1),
            done=torch.zeros(1, 1, dtype=torch.bool),
            terminated=torch.zeros(1, 1, dtype=torch.bool),
            batch_size=1,
        ),
        batch_size=1,
    )
    expected = loss(one.clone())["loss_qvalue"]
    one["priority_weight"] = torch.ones(1)
    torch.testing.assert_close(loss(one)["loss_qvalue"], expected)


def test_a_reward_of_neither_agent_nor_team_is_refused() -> None:
    batch = make_batch(4)
    batch["next", "reward"] = torch.zeros(4)
    with pytest.raises(ValueError, match=r"one row an agent, or \[\*B, K\] of the team.*got \[4\]"):
        make_loss()(batch)


def test_rewards_of_another_number_of_agents_are_refused() -> None:
    batch = make_batch(4, team=False)
    batch["next", "agents", "reward"] = torch.zeros(4, AGENTS, 2)
    with pytest.raises(ValueError, match=r"must be \[\*B, 1\] = \[4, 3, 1\], got \[4, 3, 2\]"):
        make_loss(team=False)(batch)


@pytest.mark.parametrize("side", ["low", "high"])
def test_a_penalty_wants_the_same_bounds_for_all_agents(side: str) -> None:
    bound = torch.tensor([1.0, 2.0, 1.0]).unsqueeze(-1).expand(AGENTS, A)
    bounds = {"low": -bound} if side == "low" else {"high": bound}
    actor = make_actor(distribution=IndependentNormal, **bounds)
    with pytest.raises(ValueError, match="all agents must have the same bounds.*epsilon_penalty="):
        make_loss(actor)
    make_loss(actor, epsilon_penalty=None)


class Meeting(EnvBase):
    """Each agent is shown a place and is paid for being there; an episode is one step."""

    def __init__(self) -> None:
        super().__init__(batch_size=())
        self.observation_spec = Composite(
            agents=Composite(observation=Unbounded((AGENTS, O)), shape=(AGENTS,))
        )
        self.action_spec = spec_of(Bounded(-1.0, 1.0, (AGENTS, A)))
        self.reward_spec = Composite(
            agents=Composite(reward=Unbounded((AGENTS, 1)), shape=(AGENTS,))
        )

    def _reset(self, tensordict: TensorDictBase | None = None) -> TensorDict:
        self.places = 0.4 + 0.4 * torch.rand(AGENTS, O)
        return TensorDict(agents=TensorDict(observation=self.places, batch_size=AGENTS))

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        distance = (tensordict[ACTION] - self.places[:, :A]).square().sum(-1, keepdim=True)
        agents = TensorDict(observation=self.places, reward=-distance, batch_size=AGENTS)
        ended = torch.ones(1, dtype=torch.bool)
        return TensorDict(agents=agents, done=ended, terminated=ended.clone())

    def _set_seed(self, seed: int | None) -> None:
        torch.manual_seed(seed or 0)


def mean_return(env: EnvBase, actor: ProbabilisticActor) -> float:
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        episodes = env.rollout(30, actor, break_when_any_done=False)
    return float(episodes["next", "agents", "reward"].mean())


def test_a_team_learns_in_an_environment_of_torchrl() -> None:
    torch.manual_seed(0)
    env, actor = Meeting(), make_actor()
    actor[0].module[0].params["2", "bias"].data[:A] = -1.0  # they begin far from where to go
    critics = [make_critic(central=False) for _ in range(2)]
    loss = make_loss(actor, critics, team=False, epsilon_mean=1.0, init_temperature=0.1)
    data = env.rollout(300, break_when_any_done=False)
    before = mean_return(env, actor)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    updater = SoftUpdate(loss, tau=0.1)
    for _ in range(200):
        total(loss(data[torch.randint(300, (64,))])).backward()
        optimizer.step()
        optimizer.zero_grad()
        updater.step()
    assert mean_return(env, actor) > before / 3


if __name__ == "__main__":
    pytest.main([__file__])
