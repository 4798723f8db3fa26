"""Reinforcement learning: many steps of a small network, by Stable-Baselines3, with torch's Adam and with ours.

PPO learns to balance a pole. Nothing but the optimizer differs; `eps` is named because Stable-Baselines3 takes 1e-5 for
torch's class alone. In a round the agents start alike and learn in turns, a rollout each, so that what else the machine does
falls on all of them; their seconds are summed. Draws are the same for all. Rewards part all the same: rounding changes a
move some day, and from then on two agents see different games. Compare means.

    python examples/reinforcement.py
    python examples/reinforcement.py --rounds 5 --timesteps 100000 --picture seconds.png
"""

from __future__ import annotations

import argparse
import math
import time
from statistics import mean, median
from typing import Any, NamedTuple

import common  # first, for a Ctrl-C while torch is imported

# isort: split
import numpy as np
import torch

import onepass

try:
    import gymnasium
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.utils import set_random_seed
except ImportError as missing:
    common.need("rl", missing)

ENVIRONMENT = "CartPole-v1"  # an episode's reward is at most 500
ROLLOUT, BATCH, EPOCHS = 1024, 64, 10  # moves between updates; a step of the optimizer per batch
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "torch.optim.Adam": (torch.optim.Adam, {"eps": 1e-5}),
    "torch.optim.Adam, fused": (torch.optim.Adam, {"eps": 1e-5, "fused": True}),
    "onepass.Adam": (onepass.Adam, {"eps": 1e-5}),
}


class Training(NamedTuple):
    """An agent, and the seconds in which it has learned."""

    agent: Any
    seconds: float

    def reward(self, episodes: int, seed: int) -> float:
        """Return the mean reward in episodes that the agent has not seen."""
        environment = Monitor(gymnasium.make(ENVIRONMENT))
        environment.reset(seed=seed)
        reward, _ = evaluate_policy(self.agent, environment, n_eval_episodes=episodes)
        return float(reward)

    def learn(self, seed: int) -> Training:
        """Return the training after one more rollout and its update."""
        set_random_seed(seed)
        start = time.perf_counter()
        self.agent.learn(ROLLOUT, reset_num_timesteps=False)
        return self._replace(seconds=self.seconds + time.perf_counter() - start)


def start(name: str, seed: int) -> Training:
    """Return an agent that has learned nothing."""
    kind, options = OPTIMIZERS[name]
    agent = PPO(
        "MlpPolicy",
        ENVIRONMENT,
        n_steps=ROLLOUT,
        batch_size=BATCH,
        n_epochs=EPOCHS,
        seed=seed,
        device="cpu",
        policy_kwargs={"optimizer_class": kind, "optimizer_kwargs": options},
    )
    return Training(agent, 0.0)


def turns(number: int) -> list[str]:
    """Return the optimizers in the order of a rollout: each time another one is first."""
    names = list(OPTIMIZERS)
    first = number % len(names)
    return names[first:] + names[:first]


def compete(title: str, rollouts: int, seed: int) -> dict[str, Training]:
    """Train an agent with each optimizer, in turns."""
    trainings = {name: start(name, seed) for name in OPTIMIZERS}
    with common.bar(title, rollouts) as advance:
        for number in range(rollouts):
            for name in turns(number):
                trainings[name] = trainings[name].learn((seed * 1_000_003 + number) % 2**32)
            advance("  ".join(f"{training.seconds:.1f} s" for training in trainings.values()))
    return trainings


def draw(panels: list[Any], number: int, trainings: dict[str, Training]) -> None:
    """Draw the seconds of a round, and what the episodes of its agents were worth."""
    left, right = panels
    for place, (name, (agent, seconds)) in enumerate(trainings.items()):
        look = {"color": f"C{place}", "label": name if number == 1 else None}
        left.plot(number, seconds, "o", **look)
        (monitor,) = agent.get_env().envs
        ends = np.cumsum(monitor.get_episode_lengths())
        means = np.convolve(monitor.get_episode_rewards(), np.full(20, 1 / 20), "valid")
        right.plot(ends[19:], means, linewidth=1, **look)
    left.set_ylim(bottom=0)
    left.legend(frameon=False)


def main(args: argparse.Namespace) -> None:
    """Train with each optimizer in every round; compare."""
    rollouts = math.ceil(args.timesteps / ROLLOUT)
    steps = rollouts * EPOCHS * (ROLLOUT // BATCH)
    common.console.print(f"{steps} steps of the optimizer in every training\n")
    seconds: dict[str, list[float]] = {name: [] for name in OPTIMIZERS}
    rewards: dict[str, list[float]] = {name: [] for name in OPTIMIZERS}
    with common.picture(args.picture, 2) as panels:
        panels[0].set(
            title="seconds of a training", xlabel="round", xticks=range(1, args.rounds + 1)
        )
        panels[1].set(title="reward, mean of 20 episodes", xlabel="moves")
        compete("to get warm", 1, args.seed)
        for number in range(1, args.rounds + 1):
            trainings = compete(f"round {number}", rollouts, args.seed + number)
            draw(panels, number, trainings)
            for name, training in trainings.items():
                seconds[name].append(training.seconds)
                rewards[name].append(training.reward(args.episodes, args.seed + number))
    baseline, *_ = seconds.values()
    rows = []
    for name, times in seconds.items():
        ratios = sorted(t / b for t, b in zip(times, baseline, strict=True))
        rows.append(
            (
                name,
                f"{median(times):.2f}",
                f"{median(ratios):.2f}",
                f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
                f"{mean(rewards[name]):.0f}",
            )
        )
    columns = ("", "seconds", "ratio", "of the rounds", "reward")
    common.table(f"PPO on {ENVIRONMENT}, {rollouts * ROLLOUT} moves", columns, rows)


if __name__ == "__main__":
    parser = common.arguments("Reinforcement learning with torch's Adam and with onepass.Adam.")
    parser.add_argument(
        "--timesteps", type=common.whole(1), default=20_000, help="moves to learn from"
    )
    parser.add_argument(
        "--rounds", type=common.whole(1, 1000), default=3, help="trainings with each"
    )
    parser.add_argument(
        "--episodes", type=common.whole(1, 1000), default=20, help="to test an agent with"
    )
    main(common.parse(parser, timesteps=4096, rounds=1, episodes=5))
