"""Bounds, exact results and verdicts for LoRA Dropout (arXiv 2404.09610); needs no torch.

>>> import lora_bounds
>>> lora_bounds.theorem_4_4(
...     n=100, delta=0.05, lipschitz=1.0, curvature=0.0, regularization=1.0, dropout=0.5,
...     loss_range=1.0, empirical_risk=0.1).vacuous
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lora_bounds.bounds.ensemble_risk import (
    EnsembleLosses,
    cross_entropy_losses,
    ensemble_excess,
    ensemble_loss,
    logistic_losses,
    squared_losses,
)
from lora_bounds.bounds.judge import Judgement, Status, judge, judgement_table
from lora_bounds.bounds.laws import MASK_LAWS, MaskLaw, MaskMoments, mask_law
from lora_bounds.bounds.pac_bayes import (
    dropout_kl,
    geometric_widths,
    kl_inverse,
    pac_bayes_dropout_bound,
    pac_bayes_kl_bound,
)
from lora_bounds.bounds.risk import (
    bousquet_klochkov_zhivotovskiy,
    feldman_vondrak,
    feldman_vondrak_2018,
    least_delta,
    lemma_4_3,
    theorem_4_4,
    uniform_stability_bound,
)
from lora_bounds.bounds.sparsity import (
    drop_probability,
    dropout_rate,
    dropped_norm,
    induced_regularization,
    induced_regularizer,
    inner_maximum,
    keep_probability,
    mask_moments,
    sparsity_penalty,
)
from lora_bounds.bounds.stability import (
    lemma_a1,
    paper_stability,
    self_consistent_lipschitz,
    self_consistent_stability,
    uniform_stability,
)
from lora_bounds.exact.linear import (
    effective_moment,
    mask_variance,
    masked_objective,
    mean_factor,
    minimizer,
    trained_update,
)
from lora_bounds.exact.ridge import (
    LeaveOneOut,
    RidgeFit,
    Risks,
    expected_risks,
    leave_one_out,
    population_risk,
    ridge_fit,
)
from lora_bounds.results import Assumption, BoundResult

if TYPE_CHECKING:
    from lora_bounds.bounds.compare import ComparedBound, compare_bounds, first_nonvacuous
    from lora_bounds.bounds.held_out import clopper_pearson, hoeffding
    from lora_bounds.exact.dropout_regimes import (
        SampledRisks,
        dropout_limit_risks,
        dropout_turning_ratio,
        sampled_dropout_risks,
    )
    from lora_bounds.exact.logistic import (
        LogisticFit,
        leave_one_out_fits,
        logistic_fit,
        logistic_loss,
    )
    from lora_bounds.exact.regime_grid import RegimeMap, Rise, regime_map, rising_rates
    from lora_bounds.exact.ridge_regimes import (
        CriticalRatio,
        SpectralRisks,
        critical_ratio,
        ridge_risks,
        turning_ratio,
    )
    from lora_bounds.exact.spectra import Spectrum, marchenko_pastur, wishart_spectrum
    from lora_bounds.trial.trends import RateResult, TrendResult, page_trend, rate_exponent

# Looked up when first used: scipy takes longer to import than all else.
_LATER = {
    "ComparedBound": "bounds.compare",
    "compare_bounds": "bounds.compare",
    "first_nonvacuous": "bounds.compare",
    "clopper_pearson": "bounds.held_out",
    "hoeffding": "bounds.held_out",
    "SampledRisks": "exact.dropout_regimes",
    "dropout_limit_risks": "exact.dropout_regimes",
    "dropout_turning_ratio": "exact.dropout_regimes",
    "sampled_dropout_risks": "exact.dropout_regimes",
    "LogisticFit": "exact.logistic",
    "leave_one_out_fits": "exact.logistic",
    "logistic_fit": "exact.logistic",
    "logistic_loss": "exact.logistic",
    "RegimeMap": "exact.regime_grid",
    "Rise": "exact.regime_grid",
    "regime_map": "exact.regime_grid",
    "rising_rates": "exact.regime_grid",
    "CriticalRatio": "exact.ridge_regimes",
    "SpectralRisks": "exact.ridge_regimes",
    "critical_ratio": "exact.ridge_regimes",
    "ridge_risks": "exact.ridge_regimes",
    "turning_ratio": "exact.ridge_regimes",
    "Spectrum": "exact.spectra",
    "marchenko_pastur": "exact.spectra",
    "wishart_spectrum": "exact.spectra",
    "RateResult": "trial.trends",
    "TrendResult": "trial.trends",
    "page_trend": "trial.trends",
    "rate_exponent": "trial.trends",
}

__all__ = [
    # results
    "Assumption",
    "BoundResult",
    # sparsity (Eqs. 9 to 11)
    "MASK_LAWS",
    "MaskLaw",
    "MaskMoments",
    "mask_law",
    "drop_probability",
    "dropout_rate",
    "dropped_norm",
    "induced_regularization",
    "induced_regularizer",
    "inner_maximum",
    "keep_probability",
    "mask_moments",
    "sparsity_penalty",
    # stability (Lemma A.1, Prop. 4.2)
    "lemma_a1",
    "paper_stability",
    "self_consistent_lipschitz",
    "self_consistent_stability",
    "uniform_stability",
    # generalization (Lemma 4.3, Thm 4.4)
    "bousquet_klochkov_zhivotovskiy",
    "feldman_vondrak",
    "feldman_vondrak_2018",
    "least_delta",
    "lemma_4_3",
    "theorem_4_4",
    "uniform_stability_bound",
    "dropout_kl",
    "geometric_widths",
    "kl_inverse",
    "pac_bayes_dropout_bound",
    "pac_bayes_kl_bound",
    "clopper_pearson",
    "hoeffding",
    "ComparedBound",
    "compare_bounds",
    "first_nonvacuous",
    # judged by a measured risk
    "Judgement",
    "Status",
    "judge",
    "judgement_table",
    # ensemble (Eq. 8, Thm 4.5)
    "EnsembleLosses",
    "cross_entropy_losses",
    "ensemble_excess",
    "ensemble_loss",
    "logistic_losses",
    "squared_losses",
    # exact models
    "effective_moment",
    "mask_variance",
    "masked_objective",
    "mean_factor",
    "minimizer",
    "trained_update",
    "LeaveOneOut",
    "RidgeFit",
    "Risks",
    "expected_risks",
    "leave_one_out",
    "population_risk",
    "ridge_fit",
    "LogisticFit",
    "leave_one_out_fits",
    "logistic_fit",
    "logistic_loss",
    # regimes of ridge and LoRA Dropout, trends (T1 to T3)
    "SampledRisks",
    "dropout_limit_risks",
    "dropout_turning_ratio",
    "sampled_dropout_risks",
    "RegimeMap",
    "Rise",
    "regime_map",
    "rising_rates",
    "CriticalRatio",
    "SpectralRisks",
    "critical_ratio",
    "ridge_risks",
    "turning_ratio",
    "Spectrum",
    "marchenko_pastur",
    "wishart_spectrum",
    "RateResult",
    "TrendResult",
    "page_trend",
    "rate_exponent",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"lora_bounds.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
