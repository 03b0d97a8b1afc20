"""Every corrupted claim is rejected; its true twin survives the same trials."""

import numpy as np
import pytest

from lora_bounds.claims import all_controls
from lora_bounds.claims.failure_rates import bernoulli_failure, bernoulli_ok, draw_bernoulli
from lora_bounds.claims.generalization.lemma_4_3 import memoriser_failure
from lora_bounds.claims.linear_layer.layers_by_enumeration import (
    draw_layer,
    layer_ok,
    layer_variance,
)
from lora_bounds.claims.stability.prop_4_2 import exact_quadratic_stability, quadratic_ok
from lora_bounds.claims.stability.prop_4_2_repaired import (
    draw_linear_losses,
    linear_losses_ok,
    linear_losses_stability,
)
from lora_bounds.trial.search import SearchResult, violates

CONTROLS = all_controls()
BY_NAME = {control.name: control for control in CONTROLS}


def test_there_are_enough_and_names_are_unique():
    assert len(CONTROLS) >= 12
    assert len(BY_NAME) == len(CONTROLS)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_false_claim_is_rejected(name):
    control = BY_NAME[name]
    result = control.try_false()
    if not isinstance(result, SearchResult):
        assert result.rejected
    else:
        assert result.refuted
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
    assert linear_losses_stability(problem) == 0.25
    # l_1 = 0, l_2 = t, c = 1: theta(S) = -1/4; without l_2: 0; L_2 changes by 1/4 - 1/16.
    change, slope, least = exact_quadratic_stability({"losses": [(0, 0), (0, 1)], "weight": 1})
    assert (change, slope, least) == (3 / 16, 1, 0)
    # One output, update (1, 0), x = (1, *), p = 1/2: hhat is Bernoulli(1/4), variance 3/16.
    layer = {"update": (1, 0), "sigma": (1, 0, 1), "p": 0.5, "cross": (0, 0)}
    assert layer_variance(layer) == pytest.approx(3 / 16, abs=1e-15)
    # Two equally likely points, two draws: one is unseen when both draws agree.
    assert memoriser_failure({"atoms": 2, "n": 2}, 0.4) == 0.5
    fair = {"risk": 0.5, "n": 3}
    assert bernoulli_failure(fair, lambda e: e < 0.5) == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize(
    ("draw", "accepts"),
    [
        (draw_linear_losses, linear_losses_ok),
        (draw_layer, layer_ok),
        (draw_bernoulli, bernoulli_ok),
    ],
)
def test_draws_lie_in_their_family(draw, accepts):
    rng = np.random.default_rng(0)
    assert all(accepts(draw(rng)) for _ in range(200))


def test_domains_exclude_degenerate_problems():
    assert not linear_losses_ok({"slopes": [0, 0], "regularization": 1, "p": 1})
    assert not quadratic_ok({"losses": [(-4, 1), (0, 1)], "weight": 1})
    assert not layer_ok({"update": (1, 0), "sigma": (1, 1, 1), "p": 0.5})
    assert not bernoulli_ok({"risk": 0, "n": 1, "delta": 0.5})
