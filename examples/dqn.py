"""What a small agent thinks is alike: its hidden states on a map, coloured by their value.

Trains a deep Q-network (Mnih and others 2015, with the targets of van Hasselt and others 2015) on
Acrobot: two rods that hang from a hinge, of which the middle joint is pushed until the tip swings
above a line. That takes minutes on one core, and is seeded. Then it starts a server of its own,
sends it the hidden states as codes, and draws the map with some states beside it.

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
from local import server, wait_until_ready
from numpy.typing import NDArray
from pellucid import mapping
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

TASK = "Acrobot-v1"
STEPS = 60_000
POINTS = 2500
HIDDEN = 128

_SCALE = (1.0, 1.0, 1.0, 1.0, 4 * np.pi, 9 * np.pi)
"""Of what is observed: sines and cosines of both angles, and the most of both speeds."""

_DISCOUNT = 0.99
_BATCH = 128
_FIRST_STEPS = 1000
"""That only look about."""
_TARGET_SHARE = 0.01
_EXPLORING_STEPS = 15_000
_LEAST_EXPLORING = 0.05
_SHOWN_EXPLORING = 0.15
"""When states are collected, so that they are not the same few again and again."""


class Agent(nn.Module):
    """Six numbers in, the value of each of three pushes out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(_SCALE))
        self.body = nn.Sequential(
            nn.Linear(len(_SCALE), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        )
        self.head = nn.Linear(HIDDEN, 3)

    def hidden(self, states: Tensor) -> Tensor:
        """n×HIDDEN."""
        return self.body(states / self.scale)

    def forward(self, states: Tensor) -> Tensor:
        """n×3."""
        return self.head(self.hidden(states))


@dataclass(frozen=True)
class Visited:
    """States that an agent came to.

    Attributes:
        states: n×6, as they are observed.
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
    adam = torch.optim.Adam(agent.parameters(), 5e-4)
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
            if step < _FIRST_STEPS or step % 2:
                continue
            chosen = torch.from_numpy(memory[draws.integers(0, step + 1, _BATCH)])
            _learn(agent, target, adam, chosen)
    return agent, rewards[:-1]


def _push(agent: Agent, state: NDArray[np.float32], exploring: float, draws: object) -> int:
    """The best one, or any."""
    assert isinstance(draws, np.random.Generator)
    if draws.random() < exploring:
        return int(draws.integers(3))
    with torch.no_grad():
        return int(agent(torch.from_numpy(state)[None])[0].argmax())


def _learn(agent: Agent, target: Agent, adam: torch.optim.Adam, chosen: Tensor) -> None:
    """One step of Adam, and the target a little nearer to the agent."""
    count = len(_SCALE)
    states, pushes, rewards, ended, afters = chosen.split([count, 1, 1, 1, count], 1)
    with torch.no_grad():
        best = agent(afters).argmax(1, keepdim=True)
        wanted = rewards + _DISCOUNT * (1 - ended) * target(afters).gather(1, best)
    loss = F.smooth_l1_loss(agent(states).gather(1, pushes.long()), wanted)
    adam.zero_grad()
    loss.backward()
    adam.step()
    with torch.no_grad():
        for slow, fast in zip(target.parameters(), agent.parameters(), strict=True):
            slow.lerp_(fast, _TARGET_SHARE)


def visit(agent: Agent, count: int, seed: int = 1) -> Visited:
    """So many states of its episodes."""
    draws, states = np.random.default_rng(seed), []
    with gymnasium.make(TASK) as task, torch.no_grad():
        state, _ = task.reset(seed=seed)
        while len(states) < count:
            states.append(state)
            state, _, ended, cut, _ = task.step(_push(agent, state, _SHOWN_EXPLORING, draws))
            if ended or cut:
                state, _ = task.reset()
        seen = np.stack(states)
        hidden = agent.hidden(torch.from_numpy(seen))
        return Visited(seen, hidden.numpy(), agent.head(hidden).amax(1).numpy())


def picture_of(state: Sequence[float], side_px: int = 76) -> Image.Image:
    """The rods as they hang, the line that the tip is to reach, and which way both turn."""
    scale = 4
    made = Image.new("RGB", (side_px * scale, side_px * scale), "white")
    pen = ImageDraw.Draw(made)
    middle, unit = side_px * scale / 2, side_px * scale / 4.6
    first = np.arctan2(state[1], state[0])
    second = first + np.arctan2(state[3], state[2])
    joint = (middle + unit * np.sin(first), middle + unit * np.cos(first))
    tip = (joint[0] + unit * np.sin(second), joint[1] + unit * np.cos(second))
    line = middle - unit
    pen.line([(0.1 * middle, line), (1.9 * middle, line)], (170, 175, 182), scale)
    pen.line([(middle, middle), joint], (45, 50, 58), 3 * scale)
    pen.line([joint, tip], (200, 30, 45), 3 * scale)
    for x, y in ((middle, middle), joint):
        pen.ellipse([x - 2 * scale, y - 2 * scale, x + 2 * scale, y + 2 * scale], (45, 50, 58))
    return made.resize((side_px, side_px), Image.Resampling.LANCZOS)


def draw(points: NDArray[np.float32], seen: Visited) -> Image.Image:
    """The map, and states at places that are far apart on it."""
    return mapping.scatter(
        points,
        values=seen.values,
        title="Acrobot: hidden states of a deep Q-network, coloured by value",
        value_label="expected reward (discounted): more is nearer to the line",
        insets={k: picture_of(seen.states[k]) for k in mapping.spread(points, 12)},
    )


def main(output: Path, step_count: int = STEPS) -> None:
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
