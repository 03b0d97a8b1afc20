"""One contract over all formulas: what they admit, and where they say they come from."""

import inspect
import re

import numpy as np
import pytest

from lora_bounds.bounds import ensemble_risk as ensemble
from lora_bounds.bounds import held_out, pac_bayes, sparsity, stability
from lora_bounds.bounds import risk as generalization
from lora_bounds.domains import Reals, Stacked, domains

INTERVALS = {
    "dropout": "[0, 1]", "lipschitz": "[0, inf)", "curvature": "[0, inf)",
    "regularization": "[0, inf]", "radius": "[0, inf]", "n": "[1, inf)", "delta": "[0, 1]",
    "loss_range": "(0, inf)", "empirical_risk": "[0, inf)", "stability": "[0, inf]",
    "constant": "(0, inf)", "squared_norm": "[0, inf)", "input_scale": "(0, inf)",
    "width": "(0, inf)", "variance": "[0, inf)", "n_instances": "[1, inf]",
    "infinite_loss": "[0, inf)", "kl": "[0, inf]", "loss": "(-inf, inf)",
    "target": "(-inf, inf)", "drop_probability": "[0, 1]", "bound": "[0, inf]",
    "errors": "[0, inf)", "label": "[0, inf)", "largest": "(0, inf)", "ratio": "(0, 1)",
    "count": "[1, 1000000]", "rows": "[1, inf]",
}  # fmt: skip
# Of these the annotation says more, or something else.
OTHERWISE = {
    (pac_bayes.kl_inverse, "empirical_risk"): "[0, 1]",
    (pac_bayes.pac_bayes_dropout_bound, "n"): "(-inf, inf)",
}
GOOD = {
    "dropout": 0.5, "lipschitz": 1.0, "curvature": 1.0, "regularization": 1.0, "radius": 1.0,
    "n": 9, "delta": 0.1, "loss_range": 1.0, "empirical_risk": 0.1, "stability": 0.1,
    "constant": 1.0, "squared_norm": 1.0, "input_scale": 1.0, "width": 1.0, "variance": 1.0,
    "n_instances": 2, "infinite_loss": 1.0, "kl": 1.0, "loss": 1.0, "target": 1.0,
    "drop_probability": 0.5, "bound": 1.0, "errors": 1, "law": "row_column",
    "outputs": [1.0, 2.0], "logits": [1.0, 2.0], "mean_update": [[1.0]],
    "second_moment": [[1.0]], "largest": 1.0, "ratio": 0.5, "count": 3, "widths": [1.0],
}  # fmt: skip
OWN = {
    ensemble.cross_entropy_losses: {"logits": [[1.0, 2.0]], "label": 1, "average": "logits"},
    pac_bayes.pac_bayes_dropout_bound: {"empirical_risk": [0.1]},
}
FUNCTIONS = [
    function
    for module in (sparsity, stability, generalization, pac_bayes, held_out, ensemble)
    for function in vars(module).values()
    if hasattr(function, "unchecked") and function.__module__ == module.__name__
]
CASES = [
    (function, name, found[0].interval)
    for function in FUNCTIONS
    for name, found in domains(function).items()
    if found and isinstance(found[0], Reals) and not isinstance(found[0], Stacked)
]


def arguments(function):
    """Good ones, for those that have no default."""
    required = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
    ]
    return {name: (GOOD | OWN.get(function, {}))[name] for name in required}


def test_all_formulas_are_here():
    assert {*OTHERWISE} <= {(function, name) for function, name, _ in CASES}
    assert len(FUNCTIONS) >= 35
    assert {name for _, name, _ in CASES} == {*INTERVALS}


@pytest.mark.parametrize(("function", "name", "interval"), CASES)
def test_every_argument_is_held_to_its_interval(function, name, interval):
    assert interval == OTHERWISE.get((function, name), INTERVALS[name])
    function(**arguments(function))
    bad = [np.nan] if interval.startswith("(-inf") else [-1.0, np.nan]
    bad += [np.inf] if interval.endswith("inf)") else []
    bad += [1.5] if interval.endswith(" 1]") else []
    for value in bad:
        message = f"{name} must be in {interval}, got {name}={value!r}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            function(**{**arguments(function), name: value})


@pytest.mark.parametrize("function", FUNCTIONS)
def test_arguments_are_keyword_only(function):
    with pytest.raises(TypeError, match="positional"):
        function(0.5)


IID = ("i.i.d. sample", "bounded loss")
FROM_UNIFORM = (*IID, "symmetric algorithm", "uniform stability")
PROP_4_2 = (
    "minimisers", "close solutions", "positive semidefinite Hessian",
    "curvature along the segment",
)  # fmt: skip
PROVENANCE = {
    stability.lemma_a1: (
        "Lemma A.1", "arXiv 2404.09610 v1, Lemma A.1", (*PROP_4_2, "Lipschitz regularised loss"),
    ),
    stability.paper_stability: (
        "Prop. 4.2", "arXiv 2404.09610 v1, Prop. 4.2", (*PROP_4_2, "Lipschitz regularised loss"),
    ),
    stability.self_consistent_stability: (
        "Prop. 4.2, self-consistent",
        "arXiv 2404.09610 v1, Prop. 4.2 with η = ρ + min(2 λ q D, ρ)",
        (*PROP_4_2, "Lipschitz loss"),
    ),
    stability.uniform_stability: (
        "uniform stability",
        "Bousquet and Elisseeff 2002, Theorem 22, with the penalty of Eq. 11",
        ("minimisers", "convex loss", "Lipschitz loss"),
    ),
    generalization.lemma_4_3: (
        "Lemma 4.3", "arXiv 2404.09610 v1, Lemma 4.3",
        (*IID, "symmetric algorithm", "pointwise hypothesis stability"),
    ),
    generalization.theorem_4_4: (
        "Thm 4.4", "arXiv 2404.09610 v1, Thm 4.4",
        (*IID, "symmetric algorithm", *PROP_4_2, "Lipschitz regularised loss"),
    ),
    generalization.uniform_stability_bound: (
        "Bousquet-Elisseeff", "Bousquet and Elisseeff 2002, Theorem 12", FROM_UNIFORM,
    ),
    generalization.feldman_vondrak_2018: (
        "Feldman-Vondrak 2018", "Feldman and Vondrak 2018, arXiv 1812.09859, Theorem 1.2",
        FROM_UNIFORM,
    ),
    generalization.feldman_vondrak: (
        "Feldman-Vondrak 2019", "Feldman and Vondrak 2019, arXiv 1902.10710, Theorem 1.1",
        (*FROM_UNIFORM, "constant"),
    ),
    generalization.bousquet_klochkov_zhivotovskiy: (
        "Bousquet-Klochkov-Zhivotovskiy",
        "Bousquet, Klochkov and Zhivotovskiy 2020, arXiv 1910.07833, Lemma 7 and Theorem 4",
        FROM_UNIFORM,
    ),
    pac_bayes.pac_bayes_kl_bound: (
        "PAC-Bayes kl", "Seeger 2002; Maurer 2004, arXiv cs/0411099, Theorem 5",
        (*IID, "prior before data", "randomised risk"),
    ),
    held_out.hoeffding: (
        "Hoeffding", "Hoeffding 1963, Theorem 1", ("i.i.d. sample", "unseen data", "bounded loss"),
    ),
    held_out.clopper_pearson: (
        "Clopper-Pearson", "Clopper and Pearson 1934", ("i.i.d. sample", "unseen data"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("function", PROVENANCE)
def test_results_say_where_they_come_from(function):
    result = function(**arguments(function))
    assert (result.name, result.source, result.unchecked) == PROVENANCE[function]
    assert result.direction == "upper"
    assert all(item.statement for item in result.assumptions)


def test_provenance_of_the_dropout_bound():
    result = pac_bayes.pac_bayes_dropout_bound(
        n=9, delta=0.1, dropout=0.5, squared_norm=1.0, widths=[1.0], empirical_risk=[0.1],
        loss_range=1.0,
    )  # fmt: skip
    assert result.name == "PAC-Bayes dropout"
    assert result.source == (
        "McAllester 2013, arXiv 1307.2118, dropout bound, with the kl-inverse and a union bound"
    )
    assert result.unchecked == (*IID, "prior before data", "randomised risk", "grid before data")
    assert result.trivial == 1.0


def test_batches_are_averaged_over_members_only():
    members = np.array([[0.0, 1.0, 5.0], [2.0, -1.0, 3.0]])
    got = ensemble.logistic_losses(logits=members, target=[1.0, -1.0, 1.0])
    for i, label in enumerate((1.0, -1.0, 1.0)):
        one = ensemble.logistic_losses(logits=members[:, i], target=label)
        assert got.ensemble[i] == pytest.approx(one.ensemble, rel=1e-12)
        assert got.mean_member[i] == pytest.approx(one.mean_member, rel=1e-12)
    with pytest.raises(ValueError, match=r"logits must have axes.*classes last; got logits of"):
        ensemble.cross_entropy_losses(logits=[1.0], label=0, average="logits")
    with pytest.raises(ValueError, match=r"label must have shape \(3,\), got label of shape \(\)"):
        ensemble.cross_entropy_losses(logits=np.zeros((2, 3, 4)), label=0, average="logits")
    with pytest.raises(ValueError, match="below the number of classes 4, got label=4"):
        ensemble.cross_entropy_losses(
            logits=np.zeros((2, 5, 4)), label=[0, 1, 2, 3, 4], average="logits"
        )
