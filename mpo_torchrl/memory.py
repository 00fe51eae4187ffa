"""Recurrent networks over sequences ``[*B, T]``: what they remember at each step, and after it.

A recurrent network is a torso, which reads observations step by step, and a head, which reads
what the torso says of each step. The torso runs once over a sequence; the head may then be asked
of any number of actions at each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torch import Tensor
from torchrl.modules import GRUModule, LSTMModule, set_recurrent_mode

BEFORE = "before"
"""In the states that follow: the sequence that led to them."""

BURNT_IN = "burnt_in"
"""In a sequence: what each set of parameters remembers at its start."""

IS_INIT = "is_init"
"""Where TorchRL's ``InitTracker`` says that an episode begins."""


class Part(NamedTuple):
    """A module of a sequence of modules, and what precedes the names of its parameters."""

    module: TensorDictModuleBase
    prefix: str


def split(network: Any) -> tuple[list[Part], list[Part]]:
    """Torso and head of a network: its modules up to the last recurrent one, and the rest.

    The torso is empty if nothing is recurrent; the head is then the network.

    Raises:
        ValueError: if nothing follows the last recurrent module.
    """
    parts = list(_parts(network, ""))
    recurrent = [i for i, part in enumerate(parts) if _recurrent_modules(part.module)]
    if not recurrent:
        return [], [Part(network, "")]
    if recurrent[-1] == len(parts) - 1:
        raise ValueError(
            "a recurrent network must have a layer after its last recurrent module "
            f"{type(parts[-1].module).__name__}, in a TensorDictSequential."
        )
    return parts[: recurrent[-1] + 1], parts[recurrent[-1] + 1 :]


def _parts(network: Any, prefix: str) -> Iterator[Part]:
    if isinstance(network, TensorDictSequential):
        for name, child in network.module.named_children():
            yield from _parts(child, f"{prefix}module.{name}.")
    else:
        yield Part(network, prefix)


def _recurrent_modules(module: torch.nn.Module) -> list[Any]:
    return [m for m in module.modules() if isinstance(m, (GRUModule, LSTMModule))]


class Memory:
    """The torso of a network, run over sequences with the parameters that it holds.

    Args:
        torso (sequence of TensorDictModuleBase): its modules, in the order of their calls.

    Keyword Args:
        stored (bool): whether a batch holds the state at each step, as collected; else a
            sequence starts from zero. Only the actor acts, so only its state is known.
    """

    def __init__(self, torso: Sequence[TensorDictModuleBase], *, stored: bool) -> None:
        self.torso = list(torso)
        self.stored = stored
        sequential = TensorDictSequential(*self.torso)
        recurrent = _recurrent_modules(sequential)
        # TorchRL's modules read a value, one state or two, and where episodes begin.
        self.state_keys: list[NestedKey] = [k for m in recurrent for k in m.in_keys[1:-1]]
        own = {*self.state_keys, IS_INIT}
        self.in_keys: list[NestedKey] = [k for k in sequential.in_keys if k not in own]
        self.out_keys: list[NestedKey] = [k for k in sequential.out_keys if k[0] != "next"]

    def __call__(self, states: TensorDictBase, role: str) -> TensorDictBase:
        """What the torso says of each state: its ``out_keys``, ``[*B, T, ...]``.

        Args:
            states (TensorDictBase): a sequence, or with :data:`BEFORE` the states that follow.
            role (str): which set of parameters it is, to find what was burnt in for it.
        """
        before = states.get(BEFORE, None)
        if before is None:
            return self._run(states, self._start(states, role)).select(*self.out_keys)
        sequence, place = _with_last_states(before, states, self.in_keys)
        features = self._run(sequence, self._start(before, role)).select(*self.out_keys)
        rows = features.reshape(-1, sequence.shape[-1])
        return rows[_rows(place), place + 1].reshape(before.shape)

    @torch.no_grad()
    def burn_in(self, past: TensorDictBase) -> dict[NestedKey, Tensor]:
        """What is remembered after a sequence ``[*B, T]``: states ``[*B, L, H]`` by key."""
        end = self._run(past, self._start(past, ""))
        return {key: end.get(("next", key))[..., -1, :, :] for key in self.state_keys}

    def _start(self, sequence: TensorDictBase, role: str) -> dict[NestedKey, Tensor]:
        """The states ``[*B, L, H]`` in which a sequence starts; none where they are zero."""
        known = sequence.get((BURNT_IN, role), None) if role else None
        if known is None:
            if not self.stored:
                return {}
            known = sequence
        fresh = sequence.get(IS_INIT)[..., 0, :].unsqueeze(-1)  # [*B, 1, 1]
        return {
            key: known.get(key)[..., 0, :, :].masked_fill(fresh, 0.0) for key in self.state_keys
        }

    def _run(self, sequence: TensorDictBase, start: dict[NestedKey, Tensor]) -> TensorDictBase:
        entries: dict[Any, Tensor] = {k: sequence.get(k) for k in (*self.in_keys, IS_INIT)}
        inputs = TensorDict(entries, sequence.shape)
        for key, first in start.items():
            # Only the first is read, and zeros wherever an episode begins.
            later = first.new_zeros(*sequence.shape, *first.shape[-2:])
            later[..., 0, :, :] = first
            inputs.set(key, later)
        with set_recurrent_mode(True):
            for module in self.torso:
                inputs = module(inputs)
        return inputs


def remember(batch: TensorDictBase, keys: Sequence[NestedKey], done: NestedKey) -> TensorDictBase:
    """The batch with all that memories need to know of the states that follow.

    Args:
        batch (TensorDictBase): ``[*B, T]`` transitions; unchanged.
        keys (sequence of NestedKey): what torsos read, states and all.
        done (NestedKey): the key of the ends under ``"next"``.
    """
    batch, following = batch.copy(), batch.get("next").copy()
    ends, is_init = following.get(done).clone(), batch.get(IS_INIT).clone()
    # An episode that begins has ended another, whether the batch has both flags or one.
    ends[..., :-1, :] |= is_init[..., 1:, :]
    is_init[..., 1:, :] |= ends[..., :-1, :]
    batch.set(IS_INIT, is_init)
    following.set(BEFORE, batch.select(*keys, IS_INIT, BURNT_IN, strict=False))
    following.set((BEFORE, "end"), ends)
    return batch.set("next", following)


def _with_last_states(
    before: TensorDictBase, following: TensorDictBase, keys: Sequence[NestedKey]
) -> tuple[TensorDictBase, Tensor]:
    """A sequence with the last state of each episode put in, and the place of each step.

    The state that follows a step is that of the next step, except where an episode ends: there
    it has a place of its own, and the step after it begins anew. The state that follows the step
    at ``place`` is thus always at ``place + 1``, and one run of a torso knows all of them.
    """
    ends = before.get("end")[..., 0].clone()  # [*B, T]
    ends[..., -1] = True  # nothing is known of what follows
    steps = ends.shape[-1]
    place = torch.arange(steps, device=ends.device) + ends.cumsum(-1) - ends.long()
    length = steps + int(ends.sum(-1).max())
    place = place.reshape(-1, steps)
    row = _rows(place)
    flat = TensorDict(batch_size=[len(place), length])
    for key in (*keys, IS_INIT):
        value = before.get(key)
        value = value.reshape(-1, steps, *value.shape[ends.ndim :])
        entry = value.new_zeros(*flat.shape, *value.shape[2:])
        if key != IS_INIT:
            # Overwritten by the next step wherever there is one in the same episode.
            last = following.get(key).reshape(value.shape)
            entry[row, place + 1] = last
        entry[row, place] = value
        flat.set(key, entry)
    return flat.reshape(*ends.shape[:-1], length), place


def _rows(place: Tensor) -> Tensor:
    return torch.arange(len(place), device=place.device).unsqueeze(-1)
