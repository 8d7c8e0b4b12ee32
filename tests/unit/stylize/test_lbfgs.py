"""L-BFGS of many rows at once against torch's of each alone."""

from collections.abc import Callable

import pytest
import torch
from pellucid_server.methods.optimize import updates
from torch import Tensor

COUNT = 30
GENERATOR = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


MATRICES = [drawn(COUNT, COUNT) for _ in range(3)]
STARTS = 0.5 * drawn(3, COUNT)
RATES = torch.tensor([0.8, 0.5, 0.1], dtype=torch.float64)


def quadratic(x: Tensor, row: int) -> Tensor:
    matrix = MATRICES[row] @ MATRICES[row].mT + torch.eye(COUNT, dtype=torch.float64)
    return x @ matrix @ x / 2 - x.sum()


def rosenbrock(x: Tensor, row: int) -> Tensor:
    return (10 * (x[1:] - x[:-1].square()).square() + (row + 1 - x[:-1]).square()).sum()


def fresh(count: int) -> updates.Memory:
    one, many = torch.zeros(count, COUNT), torch.zeros(count, updates.HISTORY, COUNT)
    parts = (one, one, many, many, many[..., 0])
    return updates.Memory(*(part.double() for part in parts))


def stepped(
    loss: Callable[[Tensor, int], Tensor], rows: list[int], x: Tensor, memory: updates.Memory
) -> tuple[Tensor, updates.Memory]:
    x = x.clone().requires_grad_()
    total = sum(-loss(one, row) for one, row in zip(x, rows, strict=True))
    [slope] = torch.autograd.grad(total, x)
    memory = updates.lbfgs(slope, memory, RATES[rows])
    return x.detach() + memory.change, memory


@pytest.mark.parametrize("loss", [quadratic, rosenbrock])
def test_each_row_is_torchs(loss: Callable[[Tensor, int], Tensor]) -> None:
    """Fifteen steps, of which ten are remembered; the last row comes five steps late."""
    alone = [start.clone().requires_grad_() for start in STARTS]
    optimizers = [
        torch.optim.LBFGS(
            [x], lr=float(rate), max_iter=1, history_size=10, tolerance_grad=0, tolerance_change=0
        )
        for x, rate in zip(alone, RATES, strict=True)
    ]
    x, memory = STARTS[:2], fresh(2)
    for step in range(20):
        if step == 5:
            late = fresh(1)
            x = torch.cat([x, STARTS[2:]])
            memory = updates.Memory(
                *(torch.cat([getattr(m, n) for m in (memory, late)]) for n in vars(memory))
            )
        x, memory = stepped(loss, list(range(len(x))), x, memory)
        for row, (own, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            if row == 2 and step < 5:
                continue

            def evaluate(own: Tensor = own, row: int = row) -> Tensor:
                own.grad = None
                value = loss(own, row)
                value.backward()
                return value

            optimizer.step(evaluate)
            if step < 15 + 5 * (row == 2):
                assert torch.allclose(x[row], own.detach(), rtol=1e-9, atol=1e-9)
    assert all(float(loss(x[k], k)) < float(loss(STARTS[k], k)) for k in range(3))


def test_a_row_does_not_feel_its_neighbours() -> None:
    together, alone = STARTS, STARTS[1:2]
    memories = fresh(3), fresh(1)
    for _ in range(12):
        together, first = stepped(rosenbrock, [0, 1, 2], together, memories[0])
        alone, second = stepped(rosenbrock, [1], alone, memories[1])
        memories = first, second
    assert torch.allclose(together[1], alone[0], rtol=1e-12, atol=0)


def test_what_is_flat_is_not_moved_and_not_remembered() -> None:
    nothing = torch.zeros(2, COUNT, dtype=torch.float64)
    slope = torch.cat([nothing[:1], torch.ones(1, COUNT, dtype=torch.float64)])
    memory = updates.lbfgs(slope, fresh(2), torch.ones(2, dtype=torch.float64))
    memory = updates.lbfgs(slope, memory, torch.ones(2, dtype=torch.float64))
    assert not memory.change[0].any()
    assert memory.change[1].isfinite().all()
    assert not memory.products.any()
