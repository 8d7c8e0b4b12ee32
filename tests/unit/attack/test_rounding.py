"""Attacked images at 8 bits: the budget is never exceeded, and no more is given up than needed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pellucid_server.methods.attack.algorithm import Budget
from pellucid_server.methods.attack.rounding import rounded

SHAPE = (3, 4, 5)


@st.composite
def attacked(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, Budget]:
    """A photo, an image within a budget about it, and the budget."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    norm = draw(st.sampled_from(["linf", "l2"]))
    epsilon = draw(
        st.one_of(
            st.floats(1e-3, 40.0),
            st.sampled_from([0.5, 1.0, 2.0, 8.0, math.sqrt(2), math.sqrt(7), 1.4142135]),
        )
    )
    base = generator.integers(0, 256, SHAPE).astype(float)
    change = generator.normal(size=SHAPE) * (generator.random(SHAPE) < draw(st.floats(0.05, 1)))
    if norm == "linf":
        change = (change * epsilon).clip(-epsilon, epsilon)
    else:
        change *= epsilon / max(np.linalg.norm(change), 1e-9) * draw(st.sampled_from([1.0, 0.7]))
    image = (base + change).clip(0, 255)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return (
        torch.from_numpy(image).to(dtype),
        torch.from_numpy(base).to(dtype),
        Budget(norm, epsilon),
    )


@given(attacked())
@settings(max_examples=300, deadline=None)
def test_the_budget_is_never_exceeded(
    case: tuple[torch.Tensor, torch.Tensor, Budget],
) -> None:
    image, base, budget = case
    made = rounded(image, base, budget)
    assert made.dtype == torch.uint8
    change = made.numpy().astype(int) - base.numpy().astype(int)
    exact = image.double().numpy() - base.double().numpy()
    if budget.norm == "linf":
        assert np.abs(change).max() <= budget.epsilon
        nearest = np.rint(image.double().numpy()) - base.double().numpy()
        assert (
            change == nearest.clip(-math.floor(budget.epsilon), math.floor(budget.epsilon))
        ).all()
    else:
        assert int((change**2).sum()) <= budget.epsilon**2
        assert np.abs(change - exact).max() < 1 + 1e-4  # each is one of its two neighbours


def test_what_was_rounded_up_is_given_up_first() -> None:
    """One less would be cheapest of 20, but 19 is not beside 20.04; of 14.91 both 14 and 15 are."""
    base = torch.full((3, 1, 1), 100.0, dtype=torch.float64)
    change = torch.tensor([20.03885651, 10.90129471, 14.90532303], dtype=torch.float64)
    budget = Budget("l2", float(change.square().sum().sqrt()))
    made = rounded(base + change.view(3, 1, 1), base, budget)
    assert (made.double() - base).flatten().tolist() == [20, 11, 14]


def test_without_need_nothing_is_given_up() -> None:
    base = torch.full(SHAPE, 100.0)
    image = base + torch.linspace(-3, 3, base.numel()).view(SHAPE)
    nearest = image.round().to(torch.uint8)
    for budget in (None, Budget("l2", 1e6), Budget("linf", 3.0)):
        assert torch.equal(rounded(image, base, budget), nearest)


def test_the_cheapest_are_given_up_first() -> None:
    """2.6 and 1.9 and 0.8: as 3, 2 and 1 their squares are 14; the budget allows 9."""
    base = torch.full((3, 1, 1), 100.0)
    image = base + torch.tensor([2.6, 1.9, 0.8]).view(3, 1, 1)
    made = rounded(image, base, Budget("l2", 3.5))
    assert (made.int() - 100).flatten().tolist() == [2, 2, 1]  # 9 <= 12.25 < 14
    tight = rounded(image, base, Budget("l2", 2.3))
    assert (tight.int() - 100).flatten().tolist() == [2, 1, 0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_budget_below_a_grey_level_leaves_the_photo(norm: str) -> None:
    base = torch.full(SHAPE, 7.0)
    made = rounded(base + 0.9, base, Budget(norm, 0.99))
    assert torch.equal(made, base.to(torch.uint8))
