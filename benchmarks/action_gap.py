"""What a critic of CartPole says a wrong action costs, and what it costs in truth.

    python -m benchmarks.action_gap run=runs/CartPole-v1-0-...

In states that the trained agent comes through, the other action is taken once and the agent goes
on from there: the difference between the discounted returns is the true cost, that between the
critic's values what the agent learns from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from numpy.typing import NDArray
from tensordict import TensorDict

from mpo_torchrl import MPOTrainer
from mpo_torchrl.trainer.tool import option, run_tool

FIRST, EVERY = 10, 25  # of an episode's states, those that are looked at
HORIZON = 400  # steps, after which a reward counts less than 2% of one


@dataclass
class Settings:
    """What can be set on the command line."""

    run: str = option("", "folder of a run of recipes/mpo.py on CartPole-v1")
    episodes: int = option(6, "episodes whose states are looked at")


class Agent:
    """The trained agent: its likeliest action, and the least value of its critics."""

    def __init__(self, run: Path) -> None:
        trainer = MPOTrainer.load(run / "checkpoint.zip")
        self.policy, self.gamma = trainer.policy, trainer.config.gamma
        self.critic = trainer.loss_module.critic
        self.params = trainer.loss_module.qvalue_network_params

    def action(self, observation: NDArray[np.float32]) -> int:
        """The likeliest action."""
        return int(self.policy(_state(observation))["action"].argmax())

    def values(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        """The value of each action."""
        return self.critic.predict(_state(observation), self.params).amin(0).numpy()


def _state(observation: NDArray[np.float32]) -> TensorDict:
    return TensorDict(observation=torch.as_tensor(observation))


@torch.no_grad()
def measure(settings: Settings) -> None:
    """Prints the mean and the median cost of the other action, as valued and as it is."""
    agent = Agent(Path(settings.run))
    env = CartPoleEnv()  # CartPole-v1 without its limit of 500 steps
    valued, true = [], []
    for episode in range(settings.episodes):
        for observation in visited(env, agent, seed=200 + episode)[FIRST::EVERY]:
            action = agent.action(observation)
            values = agent.values(observation)
            valued.append(values[action] - values[1 - action])
            returns = [play(env, agent, observation, first) for first in (action, 1 - action)]
            true.append(returns[0] - returns[1])
    for name, costs in (("critic", valued), ("truth", true)):
        print(f"{name}: mean {np.mean(costs):.2f}, median {np.median(costs):.2f}")
    print(f"states: {len(true)}")


def visited(env: CartPoleEnv, agent: Agent, seed: int) -> list[NDArray[np.float32]]:
    """The states of an episode of 500 steps at most."""
    observation, _ = env.reset(seed=seed)
    observations: list[NDArray[np.float32]] = []
    fallen = False
    while not fallen and len(observations) < 500:
        observations.append(observation)
        observation, _, fallen, _, _ = env.step(agent.action(observation))
    return observations


def play(env: CartPoleEnv, agent: Agent, state: NDArray[np.float32], action: int) -> float:
    """The discounted return from a state, of an action and then the agent's."""
    env.reset()
    env.state = state.astype(np.float64)
    total = 0.0
    for step in range(HORIZON):
        observation, _, fallen, _, _ = env.step(action)
        total += agent.gamma**step
        if fallen:
            break
        action = agent.action(observation)
    return total


if __name__ == "__main__":
    run_tool(Settings, measure, "What a critic of CartPole says a wrong action costs.")
