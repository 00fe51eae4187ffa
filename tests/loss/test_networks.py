"""Networks are evaluated as calling them would, whatever they are made of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import Tensor, nn
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator

from mpo_torchrl import MPOLoss, VMPOLoss
from mpo_torchrl.modules import ActionValueMLP
from tests.loss.builders import SPEC, A, O, make_actor, make_batch, make_critic, seeded, total


class Join(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, -1)


class Chain(nn.Sequential):
    """Layers in a row, the first of which takes all inputs, as in this package's critic."""

    is_chain = True

    def forward(self, *inputs: Tensor) -> Tensor:
        first, *rest = self
        features = first(*inputs)
        for layer in rest:
            features = layer(features)
        return features


class Scaled(Chain):
    """Not what its layers in a row would do."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return 3.0 * super().forward(*inputs)


class Residual(nn.Sequential):
    """Not what its layers in a row would do."""

    def forward(self, features: Tensor) -> Tensor:
        return features + super().forward(features)


class NoisyInTraining(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) + 10.0 * self.training


class Normalised(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(size))

    def forward(self, features: Tensor) -> Tensor:
        return features - self.mean


class Halves(nn.Module):
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        first, second = features.chunk(2, -1)
        return first, second


class SumOfHalves(nn.Module):
    """Takes one argument, a pair."""

    def forward(self, halves: tuple[Tensor, Tensor]) -> Tensor:
        first, second = halves
        return first + second.tanh()


def repeated_activation(size: int, out: int) -> nn.Module:
    tanh = nn.Tanh()
    return Chain(Join(), nn.Linear(size, 8), tanh, nn.Linear(8, 8), tanh, nn.Linear(8, out))


def tied_layers(size: int, out: int) -> nn.Module:
    tied = nn.Linear(size, size)
    return Chain(Join(), tied, nn.Tanh(), tied, nn.Linear(size, out))


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "MLP": lambda size, out: MLP(in_features=size, out_features=out, num_cells=[8, 8]),
    "MLP with ReLU": lambda size, out: MLP(
        in_features=size, out_features=out, num_cells=[8, 8], activation_class=nn.ReLU
    ),
    "MLP with norm": lambda size, out: MLP(
        in_features=size,
        out_features=out,
        num_cells=[8, 8],
        norm_class=nn.LayerNorm,
        norm_kwargs=[{"normalized_shape": 8}] * 2,
    ),
    "norm of its own eps": lambda size, out: Chain(
        Join(), nn.Linear(size, 8), nn.LayerNorm(8, eps=0.5), nn.Linear(8, out)
    ),
    "MLP with PReLU": lambda size, out: MLP(
        in_features=size, out_features=out, num_cells=[8, 8], activation_class=nn.PReLU
    ),
    "one activation twice": repeated_activation,
    "one layer twice": tied_layers,
    "no bias": lambda size, out: Chain(
        Join(), nn.Linear(size, 8, bias=False), nn.ELU(0.5), nn.Linear(8, out, bias=False)
    ),
    "nested": lambda size, out: Chain(
        Join(),
        nn.Sequential(nn.Linear(size, 8), nn.SiLU()),
        MLP(in_features=8, out_features=out, num_cells=[8]),
    ),
    "own forward": lambda size, out: Chain(
        Join(), Residual(nn.Linear(size, size), nn.Tanh()), nn.Linear(size, out)
    ),
    "scaled chain": lambda size, out: Scaled(Join(), nn.Linear(size, 8), nn.Linear(8, out)),
    "own layer": lambda size, out: Chain(
        Join(), NoisyInTraining(size, 8), nn.Tanh(), nn.Linear(8, out)
    ),
    "buffers": lambda size, out: Chain(
        Join(), Normalised(size), nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, out)
    ),
    "bounded output": lambda size, out: Chain(
        Join(), nn.Linear(size, 8), nn.Linear(8, out), nn.Tanh()
    ),
    "spectral norm": lambda size, out: Chain(
        Join(), nn.utils.spectral_norm(nn.Linear(size, 8)), nn.Tanh(), nn.Linear(8, out)
    ),
    "no layer": lambda size, out: Chain(Join(), nn.Linear(size, out)),
    "a pair between layers": lambda size, out: Chain(
        Join(), nn.Linear(size, 8), Halves(), SumOfHalves(), nn.Linear(4, out)
    ),
    "outputs in rows": lambda size, out: Chain(
        Join(),
        MLP(in_features=size, out_features=[2, 4], num_cells=[8]),
        nn.Flatten(-2),
        nn.Linear(8, out),
    ),  # fmt: skip
}
EVERY_NETWORK = pytest.mark.parametrize("kind", NETWORKS)


def loss_of(
    critic: nn.Module, body: nn.Module, *, hooked: bool, num_qvalue_nets: int = 2, **kwargs
) -> MPOLoss:
    """``hooked`` networks are called as modules."""
    critics = ValueOperator(critic, in_keys=["observation", "action"])
    network = TensorDictModule(
        nn.Sequential(body, NormalParamExtractor()), ["observation"], ["loc", "scale"]
    )
    if hooked:
        for module in (critics, network):
            module.register_forward_hook(lambda module, args, output: None)
    actor = ProbabilisticActor(
        network, in_keys=["loc", "scale"], distribution_class=TanhNormal, spec=SPEC
    )
    settings = {"num_action_samples": 5, "scoring_dtype": torch.float32, **kwargs}
    return MPOLoss(actor, critics, num_qvalue_nets=num_qvalue_nets, **settings)


def loss_of_kind(kind: str, *, hooked: bool, **kwargs) -> MPOLoss:
    torch.manual_seed(7)
    critic, body = NETWORKS[kind](O + A, 1), NETWORKS[kind](O, 2 * A)
    return loss_of(critic, body, hooked=hooked, **kwargs)


def assert_same(found: MPOLoss, expected: MPOLoss) -> None:
    batch = make_batch(4, 3)
    values, reference = seeded(found, batch.clone()), seeded(expected, batch.clone())
    for key in reference.keys():
        torch.testing.assert_close(values[key], reference[key], msg=key)
    gradients, expected_gradients = (
        torch.autograd.grad(total(losses), list(loss.parameters()), allow_unused=True)
        for losses, loss in ((values, found), (reference, expected))
    )
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.parametrize("num_critics", [1, 2])
@EVERY_NETWORK
def test_losses_and_gradients_are_those_of_the_called_networks(kind: str, num_critics: int) -> None:
    losses = [loss_of_kind(kind, hooked=h, num_qvalue_nets=num_critics) for h in (False, True)]
    assert_same(*losses)


@EVERY_NETWORK
def test_any_network_can_be_scored_in_low_precision(kind: str) -> None:
    exact, fast = (
        seeded(loss_of_kind(kind, hooked=False, scoring_dtype=dtype), make_batch(4, 3))
        for dtype in (torch.float32, torch.bfloat16)
    )
    for key in exact.keys():
        assert fast[key].dtype == torch.float32
        torch.testing.assert_close(fast[key], exact[key], rtol=0.05, atol=0.05, msg=key)


def test_evaluation_mode_reaches_every_layer() -> None:
    loss = loss_of_kind("own layer", hooked=False)
    reference = loss_of_kind("own layer", hooked=True)
    for module in (loss, reference):
        module.qvalue_network.eval()
        module.actor_network.eval()
    assert_same(loss, reference)


@pytest.mark.parametrize("delay", [True, False])
def test_parameters_that_were_given_new_data_are_the_ones_used(delay: bool) -> None:
    settings = {"delay_actor": delay, "delay_qvalue": delay}
    loss, fresh = (loss_of_kind("MLP", hooked=hooked, **settings) for hooked in (False, True))
    loss(make_batch(4))
    for module in (loss, fresh):
        parameters = module.network_parameters()
        vector = seeded(torch.randn, sum(p.numel() for p in parameters))
        nn.utils.vector_to_parameters(vector, parameters)
    assert_same(loss, fresh)


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_loaded_after_the_first_call_is_used(assign: bool) -> None:
    loss, other = loss_of_kind("MLP", hooked=False), loss_of_kind("MLP", hooked=True)
    loss(make_batch(4))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    loss.load_state_dict(other.state_dict(), assign=assign)
    assert_same(loss, other)


def test_a_stateful_network_put_back_is_used() -> None:
    loss, batch = loss_of_kind("MLP", hooked=False, num_qvalue_nets=1), make_batch(4)
    before = seeded(loss, batch.clone())
    actor = loss.get_stateful_net("actor_network")
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(1.0)
    loss.from_stateful_net("actor_network", actor)
    assert (seeded(loss, batch)["loss_actor"] - before["loss_actor"]).abs() > 1e-3


@pytest.mark.parametrize("policy", ["gaussian", "tanh_normal"])
@pytest.mark.parametrize(("written", "read"), [("act", "action"), ("action", "act")])
def test_the_actor_may_call_its_action_other_than_the_critic(
    policy: str, written: str, read: str
) -> None:
    critics = [make_critic(action_key=read) for _ in range(2)]
    loss = MPOLoss(make_actor(policy, out_key=written), critics)
    loss.set_keys(action=read)
    for dtype in (torch.float32, torch.float64):
        batch = make_batch(4, dtype=dtype, names={"action": read})
        assert total(loss.to(dtype)(batch)).isfinite()


class Predictor(nn.Module):
    """Its value is another method's, or its inputs come by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(O + A, 1)

    def predict(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.body(torch.cat([observation, action], -1))

    def forward(self, action: Tensor, observation: Tensor) -> Tensor:
        return -self.predict(observation, action)


def test_a_critic_may_be_another_method_of_its_module() -> None:
    network, keys = Predictor(), ["observation", "action"]
    critic = TensorDictModule(network, keys, ["state_action_value"], method="predict")
    loss, batch = MPOLoss(make_actor(), critic, num_qvalue_nets=1), make_batch(4)
    _, readings = loss.qvalue_loss(batch)
    expected = network.predict(batch["observation"], batch["action"]).squeeze(-1)
    torch.testing.assert_close(readings["q_value"], expected.detach())


def test_a_critic_may_take_its_inputs_by_name() -> None:
    network, names = Predictor(), {"observation": "observation", "action": "action"}
    critic = TensorDictModule(network, names, ["state_action_value"])
    loss, batch = MPOLoss(make_actor(), critic, num_qvalue_nets=1), make_batch(4)
    _, readings = loss.qvalue_loss(batch)
    expected = -network.predict(batch["observation"], batch["action"]).squeeze(-1)
    torch.testing.assert_close(readings["q_value"], expected.detach())


@pytest.mark.parametrize("chain", [nn.Sequential, Chain])
@pytest.mark.parametrize("first", [lambda: nn.Linear(O, 8), lambda: nn.LayerNorm(O), nn.Tanh])
def test_a_chain_that_would_drop_an_input_fails_as_calling_it_does(chain: type, first) -> None:
    network = chain(first(), nn.LazyLinear(1))
    network(torch.randn(2, O))
    loss = MPOLoss(make_actor(), ValueOperator(network, ["observation", "action"]))
    with pytest.raises(TypeError, match="positional argument"):
        loss(make_batch(4))


def test_a_critic_may_write_more_than_its_value() -> None:
    network = Chain(Join(), nn.Linear(O + A, 2), Halves())
    keys = ["observation", "action"]
    critic = TensorDictModule(network, keys, ["state_action_value", "uncertainty"])
    loss, batch = MPOLoss(make_actor(), critic, num_qvalue_nets=1), make_batch(4)
    _, readings = loss.qvalue_loss(batch)
    expected, _ = network(batch["observation"], batch["action"])
    torch.testing.assert_close(readings["q_value"], expected.squeeze(-1).detach())


def lazy_critic() -> ValueOperator:
    return ValueOperator(MLP(out_features=1, num_cells=[8]), in_keys=["observation", "action"])


def lazy_actor() -> ProbabilisticActor:
    body = nn.Sequential(MLP(out_features=2 * A, num_cells=[8]), NormalParamExtractor())
    network = TensorDictModule(body, ["observation"], ["loc", "scale"])
    return ProbabilisticActor(
        network, in_keys=["loc", "scale"], distribution_class=TanhNormal, spec=SPEC
    )


def make_value(in_features: int | None = O) -> ValueOperator:
    return ValueOperator(MLP(in_features, 1, num_cells=[8]), in_keys=["observation"])


def test_layers_that_size_themselves_work_once_they_have() -> None:
    actor, critic = lazy_actor(), lazy_critic()
    critic(actor(make_batch(2)))
    assert total(MPOLoss(actor, critic)(make_batch(4))).isfinite()


def test_a_policy_may_size_itself_after_the_loss_is_made() -> None:
    actor = lazy_actor()
    loss = MPOLoss(actor, make_critic())
    actor(make_batch(2))
    total(loss(make_batch(4))).backward()
    assert all(parameter.grad is not None for parameter in loss.network_parameters())


@pytest.mark.parametrize("critics", [lazy_critic, lambda: [lazy_critic(), lazy_critic()]])
def test_critics_to_be_stacked_must_have_sized_themselves(critics: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="qvalue_network has layers without a shape yet"):
        MPOLoss(make_actor(), critics())


@pytest.mark.parametrize(
    ("name", "make_loss"),
    [
        ("actor_network", lambda: MPOLoss(lazy_actor(), make_critic())),
        ("qvalue_network", lambda: MPOLoss(make_actor(), lazy_critic(), num_qvalue_nets=1)),
        ("actor_network", lambda: VMPOLoss(lazy_actor(), make_value())),
        ("critic_network", lambda: VMPOLoss(make_actor(), make_value(in_features=None))),
    ],
)
def test_layers_that_have_not_sized_themselves_by_the_first_batch_are_named(
    name: str, make_loss: Callable[[], nn.Module]
) -> None:
    loss = make_loss()
    with pytest.raises(ValueError, match=f"{name} has layers without a shape yet"):
        loss(make_batch(4))


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("network", ["actor_network", "qvalue_network"])
def test_hooks_put_on_a_network_later_are_called(network: str, register: str) -> None:
    loss, batch = MPOLoss(make_actor(), make_critic()), make_batch(4)
    before = total(seeded(loss, batch))
    calls: list[object] = []
    for module in getattr(loss, network).modules():
        if isinstance(module, nn.Linear):
            getattr(module, register)(lambda *_: calls.append(None))
    torch.testing.assert_close(total(seeded(loss, batch)), before)
    assert calls


@pytest.mark.parametrize("hooked", [True, False])
def test_a_batch_is_left_as_it_was_but_for_its_priority(hooked: bool) -> None:
    loss, batch = loss_of_kind("MLP", hooked=hooked), make_batch(4)
    before = batch.clone()
    loss(batch)
    assert set(batch.keys(True)) == {*before.keys(True), "td_error"}


@pytest.mark.parametrize(
    "register", ["register_full_backward_hook", "register_full_backward_pre_hook"]
)
def test_hooks_on_gradients_are_called(register: str) -> None:
    loss = loss_of_kind("MLP", hooked=False)
    calls: list[object] = []
    for module in loss.qvalue_network.modules():
        if isinstance(module, nn.Linear):
            getattr(module, register)(lambda *_: calls.append(None))
    total(loss(make_batch(4))).backward()
    assert calls


def test_a_number_changed_on_a_layer_is_the_one_used() -> None:
    class Shifted(nn.Linear):
        shift = 0.0

        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features) + self.shift

    def loss_with(shift: float) -> MPOLoss:
        torch.manual_seed(0)
        body = Shifted(O, 2 * A)
        loss = loss_of(Chain(Join(), nn.Linear(O + A, 1)), body, hooked=False)
        body.shift = shift
        return loss

    loss, expected = loss_with(0.5), loss_with(0.5)
    assert_same(loss, expected)
    loss.actor_network[0].module[0].shift = 0.0
    batch = make_batch(4)
    assert seeded(loss, batch)["entropy"] != seeded(expected, batch)["entropy"]


class Centred(nn.Module):
    """Each row depends on all the others."""

    def forward(self, features: Tensor) -> Tensor:
        return features - features.flatten(0, -2).mean(0)


def test_actions_are_scored_together_where_rows_depend_on_each_other() -> None:
    def score(hooked: bool) -> Tensor:
        torch.manual_seed(0)
        critic = Chain(Join(), nn.Linear(O + A, 8), Centred(), nn.Tanh(), nn.Linear(8, 1))
        loss = loss_of(critic, nn.Linear(O, 2 * A), hooked=hooked, scoring_dtype=torch.float32)
        return seeded(loss.e_step, make_batch(500))["e_step", "state_action_value"]

    torch.testing.assert_close(score(hooked=False), score(hooked=True))


def test_the_networks_of_this_package_are_taken_apart() -> None:
    loss = MPOLoss(
        make_actor(),
        ValueOperator(ActionValueMLP(O, SPEC, num_cells=(8,)), in_keys=["observation", "action"]),
    )
    assert loss.critic.ensemble.is_stateless


@pytest.mark.parametrize("first", [[nn.Tanh()], [nn.Identity(), nn.ReLU()]], ids=["one", "two"])
def test_activations_before_the_first_layer_leave_the_batch_as_it_was(first: list) -> None:
    body, batch = nn.Sequential(*first, nn.Linear(O, 2 * A)), make_batch(4)
    before = batch.clone()
    loss_of(Chain(Join(), nn.Linear(O + A, 1)), body, hooked=False)(batch)
    assert (batch.select(*before.keys(True, True)) == before).all()


@pytest.mark.parametrize("layer", [nn.PReLU, lambda: nn.RMSNorm(8)], ids=["PReLU", "RMSNorm"])
def test_a_loss_with_layers_of_any_kind_can_be_copied_after_a_call(layer) -> None:
    critic = Chain(Join(), nn.Linear(O + A, 8), layer(), nn.Linear(8, 1))
    loss, batch = loss_of(critic, nn.Linear(O, 2 * A), hooked=False), make_batch(4)
    total(loss(batch)).backward()
    torch.testing.assert_close(seeded(deepcopy(loss), batch), seeded(loss, batch))


class OfPixels(nn.Module):
    """Counts on ``[B, 3, 12, 12]``, as convolutions and flattening do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 4, 3, 2), nn.Linear(4 * 25 + A, 1)

    def forward(self, pixels: Tensor, action: Tensor) -> Tensor:
        features = self.convolution(pixels).flatten(1)
        return self.linear(torch.cat([features, action], dim=1))


def test_a_critic_that_counts_on_the_dimensions_of_a_batch_scores_many_actions() -> None:
    def loss_of_pixels(in_keys: list[str]) -> MPOLoss:
        torch.manual_seed(0)
        return MPOLoss(make_actor(), ValueOperator(OfPixels(), in_keys=in_keys), num_qvalue_nets=1)

    batch = make_batch(4)
    for where in (batch, batch["next"]):
        where["pixels"] = torch.rand(4, 3, 12, 12)
    loss = loss_of_pixels(["pixels", "action"])
    total(loss(batch)).backward()
    assert all(p.grad is not None for p in loss.network_parameters())
    improved = loss.e_step(batch)["e_step"]
    critic = loss.qvalue_network.module
    with torch.no_grad(), loss.qvalue_network_params.to_module(loss.qvalue_network):
        for sample in range(3):
            value = critic(batch["pixels"], improved["action"][:, sample])
            torch.testing.assert_close(improved["state_action_value"][:, sample], value.squeeze(-1))


if __name__ == "__main__":
    pytest.main([__file__, *sys.argv[1:]])
