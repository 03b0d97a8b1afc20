"""Problems as a few numbers: what Hypothesis draws, and what to paste to replay a failure."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[np.float64]


def correlated(d: int, rho: float) -> Array:
    """A second moment with unit diagonal and correlation rho^|i-j|."""
    return np.asarray(rho ** np.abs(np.subtract.outer(np.arange(d), np.arange(d))), float)


@dataclass(frozen=True)
class RidgeProblem:
    """Linear regression with Eq. 11's penalty; `repr` replays it."""

    n: int
    d: int
    noise: float
    correlation: float
    regularization: float
    dropout: float
    seed: int

    @property
    def penalty(self) -> dict[str, float]:
        return {"regularization": self.regularization, "dropout": self.dropout}

    def sample(self, rng: np.random.Generator, n: int | None = None) -> tuple[Array, Array]:
        """Gaussian inputs and targets of a truth of norm 1."""
        root = np.linalg.cholesky(correlated(self.d, self.correlation))
        x = rng.standard_normal((n or self.n, self.d)) @ root.T
        truth = np.ones(self.d) / np.sqrt(self.d)
        return x, x @ truth + self.noise * rng.standard_normal(len(x))


@dataclass(frozen=True)
class BoundedProblem:
    """Equally likely examples with norm(x) <= 1 and abs(y) <= 1, so that risks are exact."""

    n: int
    d: int
    atoms: int
    regularization: float
    dropout: float
    delta: float
    seed: int

    @property
    def penalty(self) -> dict[str, float]:
        return {"regularization": self.regularization, "dropout": self.dropout}

    def examples(self, *, signs: bool) -> tuple[Array, Array]:
        rng = np.random.default_rng(self.seed)
        x = rng.standard_normal((self.atoms, self.d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        x *= rng.choice([1.0, 0.3], size=(self.atoms, 1))
        y = rng.choice([-1.0, 1.0], size=self.atoms)
        return x, y if signs else y * rng.choice([1.0, 0.5], size=self.atoms)


@dataclass(frozen=True)
class LayerProblem:
    """A linear LoRA layer."""

    outputs: int
    inputs: int
    rank: int
    correlation: float
    dropout: float
    seed: int

    def factors(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(self.seed)
        return rng.standard_normal((self.outputs, self.rank)), rng.standard_normal(
            (self.rank, self.inputs)
        )

    @property
    def second_moment(self) -> Array:
        return correlated(self.inputs, self.correlation)

    @property
    def cross_moment(self) -> Array:
        rng = np.random.default_rng(self.seed + 1)
        return rng.standard_normal((self.outputs, self.inputs))


_seeds = st.integers(0, 10**6)
_rates = st.one_of(st.just(1.0), st.floats(0.05, 1.0))


def ridge_problems(max_n: int = 20) -> st.SearchStrategy[RidgeProblem]:
    """Few inputs, any noise, correlation up to 0.9."""
    return st.builds(
        RidgeProblem,
        n=st.integers(2, max_n),
        d=st.integers(1, 5),
        noise=st.floats(0.05, 5.0),
        correlation=st.floats(0.0, 0.9),
        regularization=st.floats(0.05, 20.0),
        dropout=_rates,
        seed=_seeds,
    )


def bounded_problems(max_n: int = 12, max_atoms: int = 6) -> st.SearchStrategy[BoundedProblem]:
    """Penalties from weak to strong; under a strong one the repaired bound is nearly attained."""
    return st.builds(
        BoundedProblem,
        n=st.integers(2, max_n),
        d=st.integers(1, 3),
        atoms=st.integers(2, max_atoms),
        regularization=st.floats(0.05, 100.0),
        dropout=_rates,
        delta=st.floats(0.05, 0.3),
        seed=_seeds,
    )


def layer_problems(
    min_correlation: float = 0.0, max_correlation: float = 0.9
) -> st.SearchStrategy[LayerProblem]:
    """Layers small enough for every mask."""
    return st.builds(
        LayerProblem,
        outputs=st.integers(1, 3),
        inputs=st.integers(2, 4),
        rank=st.integers(1, 3),
        correlation=st.floats(min_correlation, max_correlation),
        dropout=st.floats(0.05, 0.9),
        seed=_seeds,
    )
