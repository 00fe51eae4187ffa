"""What is recurrent in the networks of a loss, and how a batch is made ready for it."""

from __future__ import annotations

from collections.abc import Sequence

from tensordict import NestedKey, TensorDictBase
from torch import Tensor

from mpo_torchrl.critic.ensemble import Ensemble
from mpo_torchrl.loss.policy import Policy
from mpo_torchrl.memory import BURNT_IN, IS_INIT, remember
from mpo_torchrl.stateless import ParameterSets


class Memories:
    """The recurrent parts of an actor and its critics; falsy if there are none.

    Args:
        policy (Policy): the actor.
        critics (Ensemble): the critics.
        action_key (NestedKey): the action, which no recurrent part may read.
        burn_in (int): steps at the start of a sequence that only bring networks into their
            state.

    Raises:
        ValueError: if a critic's recurrent part reads the action, or ``burn_in`` is negative or
            without use.
    """

    def __init__(
        self, policy: Policy, critics: Ensemble, action_key: NestedKey, burn_in: int
    ) -> None:
        self.policy, self.critics, self.burn_in = policy, critics, burn_in
        self._found = [m for m in (policy.memory, critics.memory) if m is not None]
        if burn_in < 0 or (burn_in and not self._found):
            raise ValueError(
                f"burn_in must be at least 0, and 0 unless a network is recurrent, got {burn_in}."
            )
        if critics.memory is not None and action_key in critics.memory.in_keys:
            raise ValueError(
                f"the recurrent part of a critic must not read {action_key!r}: each sampled "
                "action would need a history of its own; let a layer after it read it."
            )

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def own_keys(self) -> set[NestedKey]:
        """States, and where episodes begin: what no next step is asked for."""
        states = {key for memory in self._found for key in memory.state_keys}
        return {*states, IS_INIT} if self._found else set()

    def prepare(
        self,
        batch: TensorDictBase,
        done: NestedKey,
        actors: Sequence[ParameterSets],
        critics: Sequence[ParameterSets],
    ) -> TensorDictBase:
        """The steps to learn from, with all that recurrent networks need to know of the others.

        Args:
            batch (TensorDictBase): ``[*B, T]`` transitions; unchanged.
            done (NestedKey): the key of the ends of episodes under ``"next"``.
            actors (sequence of ParameterSets): the sets of the actor that will be used.
            critics (sequence of ParameterSets): those of the critics.
        """
        if not self._found:
            return batch
        if self.burn_in:
            batch = self._burnt_in(batch, actors, critics)
        keys = {key for memory in self._found for key in memory.in_keys}
        states = [key for key in self.own_keys if key in batch.keys(True)]
        return remember(batch, [*keys, *states], done)

    def learned(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The steps of a batch that are learned from."""
        return tensordict[..., self.burn_in :] if self.burn_in else tensordict

    def _burnt_in(
        self,
        batch: TensorDictBase,
        actors: Sequence[ParameterSets],
        critics: Sequence[ParameterSets],
    ) -> TensorDictBase:
        if batch.shape[-1] <= self.burn_in:
            raise ValueError(
                f"a sequence must have more than burn_in={self.burn_in} steps, the batch is "
                f"{list(batch.shape)}."
            )
        past, batch = batch[..., : self.burn_in], self.learned(batch).copy()
        known: dict[str, dict[NestedKey, Tensor]] = {}
        for params in {params.role: params for params in actors}.values():
            known[params.role] = self.policy.burn_in(past, params)
        for params in {params.role: params for params in critics}.values():
            known.update(self.critics.burn_in(past, params))
        for role, states in known.items():
            for key, state in states.items():  # [*B, L, H], and again for each step
                shape = (*batch.shape, *state.shape[-2:])
                batch.set((BURNT_IN, role, key), state.unsqueeze(-3).expand(shape))
        return batch
