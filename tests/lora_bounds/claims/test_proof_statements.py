"""What the proofs state, checked by brute force in numpy, in shapes they only argue about."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import binom

from lora_bounds.claims.other_bounds.pac_bayes_dropout import kl_moment

IDENTITY, ALGEBRA = 1e-12, 1e-10


def all_masks(size, p):
    for bits in product((0, 1), repeat=size):
        yield np.array(bits), np.prod([1 - p if b else p for b in bits])


@pytest.fixture
def layer():
    rng = np.random.default_rng(7)
    root = rng.normal(size=(4, 6))
    return rng.normal(size=(3, 2)), rng.normal(size=(2, 4)), root @ root.T / 6, 0.3


def masked(law, b, a, p):
    if law == "row_column":
        for rows, x in all_masks(3, p):
            for columns, y in all_masks(4, p):
                yield (rows[:, None] * b) @ (a * columns), x * y
    elif law == "activation":
        for columns, y in all_masks(4, p):
            yield b @ (a * columns) / (1 - p), y
    elif law == "rank":
        for keep, y in all_masks(2, p):
            yield (b * keep) @ a, y
    else:
        for keep, y in all_masks(12, p):
            yield (b @ a) * keep.reshape(3, 4), y


@pytest.mark.claim("Linear layer, LoRA Dropout")
@pytest.mark.parametrize("law", ["row_column", "activation", "rank", "entrywise"])
def test_variance_table_in_another_shape(law, layer):
    b, a, sigma, p = layer
    k, delta, diag = 1 - p, b @ a, np.diag(np.diag(sigma))
    outcomes = list(masked(law, b, a, p))
    mean = sum(w * m for m, w in outcomes)
    variance = sum(w * np.trace((m - mean) @ sigma @ (m - mean).T) for m, w in outcomes)
    full, own = (np.trace(delta @ s @ delta.T) for s in (sigma, diag))
    factor, formula = {
        "row_column": (k**2, p * k**3 * full + p * k**2 * own),
        "activation": (1, p / k * own),
        "rank": (k, p * k * sum(b[:, j] @ b[:, j] * a[j] @ sigma @ a[j] for j in range(2))),
        "entrywise": (k, p * k * own),
    }[law]
    assert np.allclose(mean, factor * delta, rtol=0, atol=IDENTITY * 10)
    assert variance == pytest.approx(formula, rel=ALGEBRA)


@pytest.mark.claim("Audit 2")
def test_number_of_kept_entries_in_another_shape():
    p = 0.3
    k, q = 1 - p, 2 * p - p * p
    counts = [(r.sum() * c.sum(), x * y) for r, x in all_masks(3, p) for c, y in all_masks(4, p)]
    mean = sum(w * c for c, w in counts)
    variance = sum(w * (c - mean) ** 2 for c, w in counts)
    assert mean == pytest.approx(12 * k**2, rel=IDENTITY)
    assert variance == pytest.approx(12 * (q * (1 - q) + 5 * p * k**3), rel=ALGEBRA)


@pytest.mark.claim("T5, rank masks")
def test_rank_masks_with_generic_factors():
    p, rng = 0.4, np.random.default_rng(3)
    b, a = rng.normal(size=3), rng.normal(size=3)
    zero = sum(
        w for keep, w in all_masks(5, p) if keep[0] * keep[1] * np.sum(b * keep[2:] * a) == 0
    )
    q = 2 * p - p * p
    assert zero == pytest.approx(q + (1 - q) * p**3, rel=IDENTITY)


def random_algorithm(rng, atoms, n):
    """A random symmetric algorithm: a loss vector in [0, 1] for each multiset of n and n-1 points.

    Half of the time it is close to constant, so that its uniform stability is small.
    """
    spread = rng.choice([1.0, 0.1])
    base = rng.uniform(0, 1, atoms)
    noise = {}

    def losses(sample):
        key = tuple(sorted(sample))
        if key not in noise:
            noise[key] = (1 - spread) * base + spread * rng.uniform(0, 1, atoms)
        return noise[key]

    return losses


@pytest.mark.claim("Lemma 4.3")
@pytest.mark.parametrize("seed", range(12))
def test_lemma_4_3_with_constant_eight(seed):
    """E(R - Rhat)^2 <= (C^2 + 8 C n beta)/(2n), 3 atoms and n = 3, beta over all removals."""
    rng = np.random.default_rng(seed)
    atoms, n = 3, 3
    losses, weights = random_algorithm(rng, atoms, n), rng.dirichlet(np.ones(atoms))
    beta = second = 0.0
    for sample in product(range(atoms), repeat=n):
        here = losses(sample)
        probability = np.prod(weights[list(sample)])
        second += probability * (weights @ here - here[list(sample)].mean()) ** 2
        for i in range(n):
            beta = max(beta, np.abs(here - losses(sample[:i] + sample[i + 1 :])).max())
    assert second <= (1 + 8 * n * beta) / (2 * n)


@pytest.mark.parametrize("seed", range(4))
def test_lemma_4_3_identity_beyond_the_size_proved(seed):
    rng = np.random.default_rng(seed)
    atoms, n = 2, 3
    losses, w = random_algorithm(rng, atoms, n), rng.dirichlet(np.ones(atoms))
    left = right = 0.0
    for draw in product(range(atoms), repeat=n + 2):
        sample, z, fresh = draw[:n], draw[n], draw[n + 1]
        z1, z2 = sample[:2]
        probability = np.prod(w[list(draw)])
        here = losses(sample)
        first, second = losses((fresh, *sample[1:])), losses((z1, z, *sample[2:]))
        left += probability * (w @ here - here[list(sample)].mean()) ** 2
        right += probability * (
            (here[z1] - here[z2]) ** 2 / (2 * n)
            + here[z] * (here[fresh] - first[fresh])
            + first[fresh] * (here[z] - first[z])
            + (here[z2] - second[z2]) * here[z1]
            + second[z2] * (here[z1] - second[z1])
        )
    assert left == pytest.approx(right, abs=IDENTITY)


@pytest.mark.claim("Lemma A.1", "Lemma A.1, half the constant")
@pytest.mark.parametrize("seed", range(8))
def test_half_of_lemma_a1_suffices_for_quadratics(seed):
    """Three parameters: norm(v-u) <= eta/((Lmin+2c) n), S^i with factor 1/(n-1)."""
    rng = np.random.default_rng(seed)
    n, c = 4, 0.3
    roots, slopes = rng.normal(size=(n, 3, 3)), rng.normal(size=(n, 3))
    bends = np.einsum("nij,nkj->nik", roots, roots)

    def solve(index):
        return np.linalg.solve(bends[index].mean(0) + 2 * c * np.eye(3), -slopes[index].mean(0))

    everyone = np.arange(n)
    u = solve(everyone)
    least = np.linalg.eigvalsh(bends.mean(0))[0]
    for i in everyone:
        v = solve(np.delete(everyone, i))
        gradients = [(bends[i] + 2 * c * np.eye(3)) @ t + slopes[i] for t in (u, v)]
        eta = max(map(np.linalg.norm, gradients))  # a norm is convex: its maximum is at an end
        assert np.linalg.norm(v - u) <= eta / ((least + 2 * c) * n) * (1 + ALGEBRA)


@pytest.mark.claim("Audit 3", "Audit 5")
@pytest.mark.parametrize("seed", range(6))
def test_repaired_stability_and_radius_for_absolute_loss(seed):
    """abs(y - x t) is convex and not differentiable: rho = max abs(x). Solved by bisection."""
    rng = np.random.default_rng(seed)
    n, c = 6, 0.2
    x, y = rng.uniform(-1, 1, n), rng.normal(size=n)
    kinks = y / x

    def solve(weights):
        # The minimiser is a kink or a stationary point between two kinks.
        def slope(t):
            return 2 * c * t - np.sum(weights * x * np.sign(y - x * t)) / n

        low, high = -1e3, 1e3
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (low, middle) if slope(middle) > 0 else (middle, high)
        return middle

    rho = np.abs(x).max()
    u = solve(np.ones(n))
    assert abs(u) <= rho / (2 * c) * (1 + ALGEBRA)
    points = np.concatenate([kinks, [0.0]])
    for i in range(n):
        v = solve(np.arange(n) != i)
        assert abs(u - v) <= rho / (2 * c * n) * (1 + ALGEBRA) + ALGEBRA
        change = np.abs(np.abs(points - x[i] * u) - np.abs(points - x[i] * v)).max()
        assert change <= rho**2 / (2 * c * n) + ALGEBRA


@pytest.mark.claim("Audit 6")
def test_gauge_directions_are_flat_and_the_least_eigenvalue_is_not_positive():
    """f = norm(BA - M)^2/2 at its minimum, Hessian by central differences of the exact gradient."""
    rng = np.random.default_rng(1)
    b, a = rng.normal(size=(3, 2)), rng.normal(size=(2, 3))
    target = b @ a

    def gradient(flat):
        left, right = flat[:6].reshape(3, 2), flat[6:].reshape(2, 3)
        slope = left @ right - target
        return np.concatenate([(slope @ right.T).ravel(), (left.T @ slope).ravel()])

    here, step = np.concatenate([b.ravel(), a.ravel()]), 1e-5
    eye = np.eye(12)
    hessian = np.array(
        [(gradient(here + step * e) - gradient(here - step * e)) / (2 * step) for e in eye]
    )
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    flat = (np.abs(values) < 1e-6).sum()
    assert flat == 4  # r^2 gauge directions
    assert values[0] < 1e-6


@pytest.mark.claim("PAC-Bayes kl, price of the logarithm")
@pytest.mark.parametrize("n", [1, 2, 7, 8, 30])
@pytest.mark.parametrize("risk", [0.03, 0.5])
def test_kl_moment_against_the_binomial_sum(n, risk):
    k = np.arange(n + 1)
    share = k / n
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(k > 0, share * np.log(share / risk), 0)
        kl = kl + np.where(k < n, (1 - share) * np.log((1 - share) / (1 - risk)), 0)
    expected = float(np.sum(binom.pmf(k, n, risk) * np.exp(n * kl)))
    assert float(kl_moment(n)) == pytest.approx(expected, rel=ALGEBRA)
    assert expected <= 2 * np.sqrt(n) * (1 + ALGEBRA)


@pytest.mark.claim("T3, training risk")
@pytest.mark.parametrize("seed", range(6))
def test_training_risk_rises_for_a_loss_that_is_not_convex(seed):
    """Global minima of a random trigonometric loss plus the penalty of Eq. 11, on a fine grid."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-4, 4, 20001)
    loss = sum(a * np.sin(w * grid + b) for a, w, b in rng.normal(0, 2, (5, 3)))
    best = [np.argmin(loss + 0.3 * (2 * p - p * p) * grid**2) for p in np.linspace(0, 1, 21)]
    assert np.all(np.diff(loss[best]) >= 0)
    assert np.all(np.diff(np.abs(grid[best])) <= 0)


@pytest.mark.claim("Uniform stability bound")
def test_theorem_12_bounded_difference():
    """A random algorithm: R - Rhat moves by at most (4 n beta + C)/n when a point is replaced."""
    rng = np.random.default_rng(5)
    atoms, n = 3, 3
    losses, weights = random_algorithm(rng, atoms, n), rng.dirichlet(np.ones(atoms))
    gap = {}
    beta = 0.0
    for sample in product(range(atoms), repeat=n):
        here = losses(sample)
        gap[sample] = weights @ here - here[list(sample)].mean()
        for i in range(n):
            beta = max(beta, np.abs(here - losses(sample[:i] + sample[i + 1 :])).max())
    moves = [
        abs(gap[s] - gap[(*s[:i], z, *s[i + 1 :])]) for s in gap for i in range(n) for z in range(3)
    ]
    assert 0 < max(moves) <= (4 * n * beta + 1) / n


def logistic_loss(o):
    return np.logaddexp(0, -o)


@pytest.mark.parametrize("loss", [np.square, logistic_loss, np.abs])
def test_more_exchangeable_members_never_hurt(loss):
    """Draws without replacement from a list: exchangeable, not independent."""
    outputs = np.random.default_rng(2).normal(size=5)
    means = [
        np.mean([loss(np.mean(m)) for m in permutations(outputs, size)]) for size in range(1, 6)
    ]
    assert np.all(np.diff(means) <= IDENTITY)
