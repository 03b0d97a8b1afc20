"""A bounded ridge problem in which gap and stability are exact, for the figures of the bounds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_bounds import leave_one_out, ridge_fit

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BoundedRidge:
    """Equally likely examples with norm(x) <= 1 and abs(y) <= 1, penalty lambda q norm(theta)^2.

    Attributes:
        inputs: Of shape (atoms, d).
        targets: Of shape (atoms,).
        regularization: lambda.
    """

    inputs: Array
    targets: Array
    regularization: float

    def radius(self, p: float) -> float:
        """Solutions lie in this ball: the objective at 0 is at most 1/2.

        Args:
            p: Dropout rate, positive.

        Returns:
            Radius.
        """
        q = 2 * p - p * p
        return float((0.5 / (self.regularization * q)) ** 0.5)

    def loss_range(self, p: float) -> float:
        """Greatest loss of any solution on any example.

        Args:
            p: Dropout rate, positive.

        Returns:
            C.
        """
        return 0.5 * (1.0 + self.radius(p)) ** 2

    def lipschitz(self, p: float) -> float:
        """Lipschitz constant of the loss on the ball of solutions.

        Args:
            p: Dropout rate, positive.

        Returns:
            The constant.
        """
        return 1.0 + self.radius(p)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw examples.

        Args:
            n: How many.
            rng: Generator.

        Returns:
            (inputs, targets).
        """
        chosen = rng.integers(len(self.targets), size=n)
        return self.inputs[chosen], self.targets[chosen]

    def gaps(self, n: int, p: float, draws: int, seed: int = 0) -> tuple[Array, Array, float]:
        """Exact gaps of samples, and their mean.

        The mean is that of gap + Rhat(c) - R(c) for a fixed c, the solution on the whole law: the
        same expectation, with the noise of order 1/sqrt(n) gone.

        Args:
            n: Sample size.
            p: Dropout rate.
            draws: Number of samples.
            seed: Of the samples.

        Returns:
            (training risks, gaps, mean gap); the first two of shape (draws,).
        """
        rng, risks, controls = np.random.default_rng(seed), [], []
        whole = ridge_fit(
            inputs=self.inputs, targets=self.targets, regularization=self.regularization, dropout=p
        )
        for _ in range(draws):
            x, y = self.sample(n, rng)
            fit = ridge_fit(inputs=x, targets=y, regularization=self.regularization, dropout=p)
            test = float(np.mean((self.targets - self.inputs @ fit.solution) ** 2)) / 2
            risks.append((fit.train_risk, test - fit.train_risk))
            seen = float(np.mean((y - x @ whole.solution) ** 2)) / 2
            controls.append(seen - whole.train_risk)
        train, gap = np.array(risks).T
        return train, gap, float(np.mean(gap + np.array(controls)))

    def stability(self, n: int, p: float, draws: int, seed: int = 0) -> Array:
        """Exact pointwise hypothesis stability of samples (convention 1/n).

        Args:
            n: Sample size.
            p: Dropout rate.
            draws: Number of samples.
            seed: Of the samples.

        Returns:
            Mean absolute change of the loss of the example left out, shape (draws,).
        """
        rng, found = np.random.default_rng(seed), []
        for _ in range(draws):
            x, y = self.sample(n, rng)
            found.append(
                leave_one_out(
                    inputs=x, targets=y, regularization=self.regularization, dropout=p
                ).hypothesis_stability
            )
        return np.array(found)


def bounded_ridge(*, regularization: float, noise: float = 0.5, d: int = 5) -> BoundedRidge:
    """A problem of 200 atoms.

    Args:
        regularization: lambda.
        noise: Standard deviation of the targets' noise before they are cut to [-1, 1].
        d: Number of inputs.

    Returns:
        The problem.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    truth = np.ones(d) / np.sqrt(d)
    y = np.clip(x @ truth + noise * rng.standard_normal(200), -1.0, 1.0)
    return BoundedRidge(x, y, regularization)
