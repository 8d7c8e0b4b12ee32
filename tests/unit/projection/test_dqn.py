"""The agent of the docs: a few steps of it, and its picture."""

import numpy as np
import torch

from examples import dqn


def test_it_learns_what_a_push_is_worth() -> None:
    """Of a task of one step: the wanted value is the reward, whatever comes after."""
    torch.manual_seed(0)
    agent, target = dqn.Agent(), dqn.Agent()
    adam = torch.optim.Adam(agent.parameters(), 1e-2)
    states = torch.randn(64, 4)
    pushes = torch.arange(64)[:, None] % 2
    rewards = 3.0 * pushes
    chosen = torch.cat([states, pushes, rewards, torch.ones(64, 1), torch.randn(64, 4)], 1)
    for _ in range(200):
        dqn._learn(agent, target, adam, chosen)
    torch.testing.assert_close(agent(states).gather(1, pushes), rewards, atol=0.2, rtol=0)


def test_a_short_run_is_the_same_again() -> None:
    (first, rewards), (again, _) = (dqn.train(600) for _ in range(2))
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert sum(rewards) > 500
    seen = dqn.visit(first, 50)
    assert seen.hidden.shape == (50, dqn.HIDDEN)
    values = first(torch.from_numpy(seen.states)).amax(1)
    np.testing.assert_allclose(seen.values, values.detach(), rtol=1e-5)
    picture = dqn.draw(seen.states[:, [0, 2]], seen)
    assert picture.width == 1120
    assert picture.height > 900


def test_the_pole_leans_as_it_does() -> None:
    upright, leaning = (
        np.asarray(dqn.picture_of(state)).astype(int) for state in ([0, 0, 0, 0], [0, 0, 0.4, 0])
    )
    red = [np.argwhere(p[:, :, 0] - p[:, :, 1] > 100).mean(0) for p in (upright, leaning)]
    assert abs(red[0][1] - 41.5) < 1
    assert red[1][1] > red[0][1] + 5
