"""Every corrupted claim is rejected; its true twin survives the same trials."""

import numpy as np
import pytest

from lora_bounds.controls import CONTROLS, families
from lora_bounds.trial.search import SearchResult, violates

BY_NAME = {control.name: control for control in CONTROLS}


def test_there_are_enough_and_names_are_unique():
    assert len(CONTROLS) >= 12
    assert len(BY_NAME) == len(CONTROLS)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_false_claim_is_rejected(name):
    control = BY_NAME[name]
    result = control.try_false()
    assert control.rejected()
    if isinstance(result, SearchResult):
        assert result.margin < 0
        assert violates(control.false, result.problem)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_true_claim_survives(name):
    assert BY_NAME[name].survives()


@pytest.mark.parametrize("name", BY_NAME)
def test_a_rejection_does_not_hang_on_one_seed(name):
    from dataclasses import replace

    control = replace(BY_NAME[name], seed=1)
    assert control.rejected()
    assert control.survives()


def test_the_reference_computations_by_hand():
    """slopes (0, 1), lambda q = 1: theta(S) = -1/4, without the second point 0, change 1/4."""
    problem = {"slopes": [0, 1], "regularization": 1, "p": 1}
    assert families.linear_losses_stability(problem) == 0.25
    # l_1 = 0, l_2 = t, c = 1: theta(S) = -1/4; without l_2: 0; L_2 changes by 1/4 - 1/16.
    change, slope, least = families.quadratic_stability({"losses": [(0, 0), (0, 1)], "weight": 1})
    assert (change, slope, least) == (3 / 16, 1, 0)
    # One output, update (1, 0), x = (1, *), p = 1/2: hhat is Bernoulli(1/4), variance 3/16.
    layer = {"update": (1, 0), "sigma": (1, 0, 1), "p": 0.5, "cross": (0, 0)}
    assert families.layer_variance(layer) == pytest.approx(3 / 16, abs=1e-15)
    # Two equally likely points, two draws: one is unseen when both draws agree.
    assert families.memoriser_failure({"atoms": 2, "n": 2}, 0.4) == 0.5
    fair = {"risk": 0.5, "n": 3}
    assert families.bernoulli_failure(fair, lambda e: e < 0.5) == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize(
    ("draw", "accepts"),
    [
        (families.draw_linear_losses, families.linear_losses_ok),
        (families.draw_layer, families.layer_ok),
        (families.draw_bernoulli, families.bernoulli_ok),
    ],
)
def test_draws_lie_in_their_family(draw, accepts):
    rng = np.random.default_rng(0)
    assert all(accepts(draw(rng)) for _ in range(200))


def test_domains_exclude_degenerate_problems():
    assert not families.linear_losses_ok({"slopes": [0, 0], "regularization": 1, "p": 1})
    assert not families.quadratic_ok({"losses": [(-4, 1), (0, 1)], "weight": 1})
    assert not families.layer_ok({"update": (1, 0), "sigma": (1, 1, 1), "p": 0.5})
    assert not families.bernoulli_ok({"risk": 0, "n": 1, "delta": 0.5})
