"""Bad input found by the hardening, each with the error that it now gets."""

import inspect
from typing import Literal

import numpy as np
import pytest

import lora_bounds as lb
from lora_bounds.domains import Call, Number, Reals, formula, unchecked
from lora_bounds.exact.ridge_regimes import turning_ratio
from lora_bounds.rounding import Array
from lora_bounds.trial.effects import crossed

RIDGE = {"inputs": [[1.0], [2.0], [4.0]], "targets": [1.0, 2.0, 3.0]}
RATES = {"regularization": 1.0, "dropout": 0.5}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1.0], [1.0, 2.0]], r"p must hold real numbers, got p=\[\[1.0\], \[1.0, 2.0\]\]"),
        (10**5000, "p must hold real numbers, got p=<int>"),
        ("x" * 10_000, "p must hold real numbers, got p='xxx.*\\.\\.\\."),
        (np.ma.masked_array([0.1, 0.2], [True, False]), "p must hold real numbers, got p=array of"),
        (np.longdouble("1e4000"), r"p must be in \(-inf, inf\), got p=inf"),
        (np.zeros((1,) * 40), "p must have at most 16 axes, got 40 axes"),
        (True, "p must hold real numbers, got p=True"),
    ],
    ids=["ragged", "huge", "text", "masked", "long", "deep", "bool"],
)
def test_what_is_no_number_is_named_and_shown_in_short(value, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        Reals()("p", value)
    assert len(str(caught.value)) < 200


def test_one_number_is_not_several():
    with pytest.raises(ValueError, match=r"aspect must be one number, got aspect of shape \(1,\)"):
        lb.marchenko_pastur(aspect=[2.0])
    with pytest.raises(ValueError, match=r"d must be in \[1, 100000\], got d=1000000000000.0"):
        lb.wishart_spectrum(n=2, d=10**12)
    with pytest.raises(ValueError, match=r"rank must be a whole number, got rank=1.5"):
        lb.minimizer(law="none", second_moment=[[1.0]], cross_moment=[[1.0]], dropout=0.0, rank=1.5)


def test_shapes_that_do_not_broadcast_are_named():
    message = r"n, delta must have shapes that broadcast, got n of \(2,\), delta of \(3,\)"
    with pytest.raises(ValueError, match=message):
        lb.hoeffding(n=[1, 2], delta=[0.1] * 3, empirical_risk=0.0, loss_range=1.0)


def test_words_and_records_are_told_from_other_things():
    with pytest.raises(ValueError, match=r"law must be one of .* got law=array of shape"):
        lb.mask_moments(law=np.zeros(3), dropout=0.5)
    with pytest.raises(TypeError, match="spectrum must be a Spectrum, got spectrum=3"):
        turning_ratio(spectrum=3, weight=1.0)
    with pytest.raises(TypeError, match="judgements must be a sequence of Judgement, got"):
        lb.judgement_table([1, 2])
    with pytest.raises(TypeError, match="values must be an array, got values=3"):
        lb.Spectrum(values=3, weights=np.ones(1), aspect=1.0, invertible=True)
    with pytest.raises(TypeError, match="bound must be a function, got bound=3"):
        lb.first_nonvacuous(3)
    with pytest.raises(TypeError, match="bound must return a BoundResult, got 32"):
        lb.first_nonvacuous(len)


@pytest.mark.parametrize(("seed", "kind"), [(-1, ValueError), (0.5, TypeError), (True, TypeError)])
def test_a_seed_is_a_whole_number(seed, kind):
    with pytest.raises(kind, match=f"seed must be .*, got seed={seed}"):
        lb.rate_exponent([1, 2], [[1.0, 2.0], [1.0, 2.0]], seed=seed)


def test_a_result_beyond_floats_is_an_error_and_not_infinity():
    with pytest.raises(
        ValueError, match=r"targets, .* floats suffice, .* targets=array up to 1e.308"
    ):
        lb.ridge_fit(**RIDGE | {"targets": [1e308, 1e308, 1.0]}, **RATES)
    with pytest.raises(ValueError, match="floats suffice"):
        lb.squared_losses(outputs=[1e200, -1e200], target=0.0)
    with pytest.raises(ValueError, match="logits must be of a size"):
        lb.cross_entropy_losses(
            logits=[[1e308, -1e308], [-1e308, 1e308]], label=0, average="logits"
        )


def test_a_bound_is_not_made_of_nan():
    with pytest.raises(ValueError, match=r"value must be in \[-inf, inf\], got value=nan"):
        lb.BoundResult(float("nan"), "upper", 1.0, "", (), False, "", None)


def test_a_target_for_each_output_is_not_dealt_out_over_the_members():
    """Two members and two targets: each target meets both members."""
    found = lb.squared_losses(outputs=[0.0, 2.0], target=[0.0, 4.0])
    np.testing.assert_array_equal(found.ensemble, [1.0, 9.0])
    np.testing.assert_array_equal(found.mean_member, [2.0, 10.0])
    np.testing.assert_array_equal(found.gap, [1.0, 1.0])
    found = lb.logistic_losses(logits=[0.0, 2.0], target=[1.0, -1.0])
    expected = [np.mean(np.logaddexp(0.0, [0.0, -2.0])), np.mean(np.logaddexp(0.0, [0.0, 2.0]))]
    np.testing.assert_allclose(found.mean_member, expected)


@pytest.mark.parametrize("aspect", [0.5, 2.0])
def test_tiny_penalties_are_limits_and_not_nan(aspect):
    spectrum = lb.marchenko_pastur(aspect=aspect)
    for weight in (5e-324, 1e-300):
        assert abs(turning_ratio(spectrum=spectrum, weight=weight)) <= 1e-290
        risks = lb.ridge_risks(
            spectrum=spectrum, weight=weight, signal_power=1.0, noise_variance=0.0
        )
        assert np.isclose(risks.test, max(1.0 - aspect, 0.0) / 2.0, atol=1e-6)


def test_a_door_reads_the_annotations_and_leaves_python_its_own_errors():
    @formula
    def f(x: Number, *, law: Literal["a", "b"] = "a", names: list[Call] | None = None) -> Array:
        return x

    assert f(1) == 1.0
    assert f(x=1, law="b", names=3) == 1.0  # of a list of anything nothing is known
    with pytest.raises(ValueError, match="law must be one of a, b; got law='c'"):
        f(1, law="c")
    with pytest.raises(ValueError, match=r"law must be one of a, b; got law=None"):
        f(1, law=None)
    for args, given in (((), {}), ((1, 2), {}), ((1,), {"x": 1}), ((1,), {"y": 2})):
        with pytest.raises(TypeError, match=r"f\(\) (missing|takes|got)"):
            f(*args, **given)


def test_a_formula_behind_its_door_is_not_checked():
    assert unchecked(lb.drop_probability)(dropout=np.array(3.0)) == -3.0
    assert inspect.signature(lb.lemma_4_3).return_annotation is lb.BoundResult
    assert inspect.signature(lb.lemma_4_3) == inspect.signature(lb.uniform_stability_bound)


def test_sizes_of_one_name_are_one_size():
    sizes = {"inputs": [[1.0, 2.0]], "solution": [1.0, 2.0]}
    with pytest.raises(ValueError, match=r"labels must have 1 entries, got labels of shape \(2,\)"):
        lb.logistic_loss(labels=[1.0, -1.0], **sizes)
    with pytest.raises(ValueError, match=r"solution must have 2 entries"):
        lb.logistic_loss(labels=[1.0], **sizes | {"solution": [1.0]})


def test_what_has_no_limit_there_is_not_silent():
    """A mean beyond the floats is warned of, where no formula says that it is a limit."""
    with pytest.warns(RuntimeWarning, match="overflow"):
        crossed([-1.3e308, -1.0e308, 3.8e307])
