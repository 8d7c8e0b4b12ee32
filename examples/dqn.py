"""What a small agent thinks is alike: its hidden states on a map, coloured by their value.

Trains a deep Q-network (Mnih and others 2015, with the targets of van Hasselt and others 2015) on
CartPole: a cart that is pushed left or right so that the pole on it stays up. That takes a minute
or two on one core, and is seeded. Then it starts a server of its own, sends it the hidden states
as codes, and draws the map with some states beside it.

    python examples/dqn.py docs/dqn.png
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import pellucid
import torch
from numpy.typing import NDArray
from pellucid import mapping
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

TASK = "CartPole-v1"
STEPS = 25_000
POINTS = 2500
HIDDEN = 128
PUSHES = 2

_SCALE = (1.2, 1.0, 0.1, 1.0)
"""Of what is observed: where the cart is and how fast, how far the pole leans and how fast."""

_DISCOUNT = 0.99
_BATCH = 64
_FIRST_STEPS = 500
"""That only look about."""
_TARGET_STEPS = 200
"""For so long the target stays as it is."""
_EXPLORING_STEPS = 5_000
_LEAST_EXPLORING = 0.05
_SHOWN_EXPLORING = (0.8, 1.0)
"""Of episodes in turn when states are collected: pushed at random most of the time, poles fall."""
_SHOWN_STEPS = 10
"""Of each of them, the last ones: before, all is well and worth the same."""


class Agent(nn.Module):
    """Four numbers in, the value of each of two pushes out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(_SCALE))
        self.body = nn.Sequential(
            nn.Linear(len(_SCALE), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        )
        self.head = nn.Linear(HIDDEN, PUSHES)

    def hidden(self, states: Tensor) -> Tensor:
        """n×HIDDEN."""
        return self.body(states / self.scale)

    def forward(self, states: Tensor) -> Tensor:
        """n×PUSHES."""
        return self.head(self.hidden(states))


@dataclass(frozen=True)
class Visited:
    """States that an agent came to.

    Attributes:
        states: n×4, as they are observed.
        hidden: n×HIDDEN.
        values: n: what is expected of the best push, discounted.
    """

    states: NDArray[np.float32]
    hidden: NDArray[np.float32]
    values: NDArray[np.float32]


def train(step_count: int, seed: int = 0) -> tuple[Agent, list[float]]:
    """An agent, and the reward of each episode."""
    torch.manual_seed(seed)
    draws = np.random.default_rng(seed)
    agent, target = Agent(), Agent()
    target.load_state_dict(agent.state_dict())
    adam = torch.optim.Adam(agent.parameters(), 1e-3, fused=True)
    count = len(_SCALE)
    memory = np.zeros((step_count, 2 * count + 3), np.float32)
    rewards = [0.0]
    with gymnasium.make(TASK) as task:
        state, _ = task.reset(seed=seed)
        for step in range(step_count):
            exploring = max(_LEAST_EXPLORING, 1 - step / _EXPLORING_STEPS)
            push = _push(agent, state, exploring, draws)
            after, reward, ended, cut, _ = task.step(push)
            memory[step] = (*state, push, float(reward), ended, *after)
            rewards[-1] += float(reward)
            state = after
            if ended or cut:
                state, _ = task.reset()
                rewards.append(0.0)
            if step < _FIRST_STEPS:
                continue
            if step % _TARGET_STEPS == 0:
                target.load_state_dict(agent.state_dict())
            chosen = torch.from_numpy(memory[draws.integers(0, step + 1, _BATCH)])
            _learn(agent, target, adam, chosen)
    return agent, rewards[:-1]


def _push(agent: Agent, state: NDArray[np.float32], exploring: float, draws: object) -> int:
    """The best one, or any."""
    assert isinstance(draws, np.random.Generator)
    if draws.random() < exploring:
        return int(draws.integers(PUSHES))
    with torch.no_grad():
        return int(agent(torch.from_numpy(state)[None])[0].argmax())


def _learn(agent: Agent, target: Agent, adam: torch.optim.Adam, chosen: Tensor) -> None:
    """One step of Adam."""
    count = len(_SCALE)
    states, pushes, rewards, ended, afters = chosen.split([count, 1, 1, 1, count], 1)
    with torch.no_grad():
        best = agent(afters).argmax(1, keepdim=True)
        wanted = rewards + _DISCOUNT * (1 - ended) * target(afters).gather(1, best)
    loss = F.smooth_l1_loss(agent(states).gather(1, pushes.long()), wanted)
    adam.zero_grad()
    loss.backward()
    adam.step()


def visit(agent: Agent, count: int, seed: int = 1) -> Visited:
    """So many states of the ends of its episodes."""
    draws, states, episode = np.random.default_rng(seed), [], 0
    lived: list[NDArray[np.float32]] = []
    with gymnasium.make(TASK) as task, torch.no_grad():
        state, _ = task.reset(seed=seed)
        while len(states) < count:
            lived.append(state)
            exploring = _SHOWN_EXPLORING[episode % len(_SHOWN_EXPLORING)]
            state, _, ended, cut, _ = task.step(_push(agent, state, exploring, draws))
            if ended or cut:
                states += lived[-_SHOWN_STEPS:]
                lived, episode = [], episode + 1
                state, _ = task.reset()
        seen = np.stack(states[:count])
        hidden = agent.hidden(torch.from_numpy(seen))
        return Visited(seen, hidden.numpy(), agent.head(hidden).amax(1).numpy())


def picture_of(state: Sequence[float], side_px: int = 84) -> Image.Image:
    """The cart on its track, the pole, and where the middle is; the pole leans as it does."""
    scale = 4
    side = side_px * scale
    made = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(made)
    ground = 0.78 * side
    pen.line([(0, ground), (side, ground)], (170, 175, 182), scale)
    pen.line([(side / 2, ground), (side / 2, ground + 0.1 * side)], (170, 175, 182), scale)
    x = side / 2 + state[0] / 2.4 * 0.4 * side
    length = 0.56 * side
    tip = (x + length * np.sin(state[2]), ground - 0.12 * side - length * np.cos(state[2]))
    cart = (x - 0.14 * side, ground - 0.12 * side, x + 0.14 * side, ground)
    pen.rectangle(cart, (45, 50, 58))
    pen.line([(x, ground - 0.12 * side), tip], (200, 30, 45), 4 * scale)
    return made.resize((side_px, side_px), Image.Resampling.LANCZOS)


def draw(points: NDArray[np.float32], seen: Visited) -> Image.Image:
    """The map, and states at places that are far apart on it."""
    return mapping.scatter(
        points,
        values=seen.values,
        title="CartPole: hidden states of a deep Q-network, coloured by their value",
        value_label="expected reward, discounted: steps that the pole stays up",
        insets={k: picture_of(seen.states[k]) for k in mapping.spread(points, 12)},
    )


def main(output: Path, step_count: int = STEPS) -> None:
    from local import server, wait_until_ready  # beside this file, where it is run by itself

    torch.set_num_threads(1)
    agent, rewards = train(step_count)
    print(f"{len(rewards)} episodes, the last 50 of {np.mean(rewards[-50:]):.0f} on average")
    seen = visit(agent, POINTS)
    with server() as (address, _), pellucid.Client(address) as client:
        wait_until_ready(client)
        with client.project(seen.hidden, perplexity=50) as making:
            for event in making:
                print(f"\r{event.stage} {event.step}/{event.step_count}", end="", flush=True)
            made = making.result()
    draw(made.points, seen).save(output)
    print(f"\n{output}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/dqn.png"))
