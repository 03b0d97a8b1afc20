"""The binomial tail to nearly full precision, and limits of a probability certified against it.

P(Bin(n, x) <= k) is C(n, k) x^k (1-x)^(n-k) times (n-k) ∫_0^1 (1 + s (1-x)/x)^k (1-s)^(n-k-1) ds.
The first factor is Loader's (2000, "Fast and accurate computation of binomial probabilities"), the
integrand is log-concave. Both are sums of terms of one sign in d = n x - k, which is computed in
twice the precision, so that nothing cancels, however large n is.
"""

import math

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.special import betainc, betaincc, betainccinv, betaincinv

from lora_bounds.bounds.pac_bayes import kl_inverse
from lora_bounds.domains import kernel_of
from lora_bounds.rounding import Array

Rows = NDArray[np.intp]

LARGEST = 2.0**53  # the largest n: beyond it floats skip whole numbers

# The log of the tail is computed within this, absolute and relative: compared with 60 digits in the
# tests, where the errors are ten times smaller.
_LOG_SLACK = 1e-13
_REACH = 45.0  # the integrand is cut off below e^-45
_CHUNK = 2048
_STEPS = 200
_LEAST, _MOST = 1e-300, 1.0 - 2.0**-53  # of the x at which the tail is computed


def _quadrature() -> tuple[Array, Array]:
    x, w = legendre.leggauss(16)
    edges = (np.arange(25) / 24.0) ** 2
    half, middle = np.diff(edges) / 2.0, (edges[1:] + edges[:-1]) / 2.0
    return (middle[:, None] + half[:, None] * x).ravel(), (half[:, None] * w).ravel()


_NODES, _WEIGHTS = _quadrature()
_FACTORIALS = np.array(
    [0.0]
    + [
        math.log(math.factorial(i)) - (i + 0.5) * math.log(i) + i - 0.5 * math.log(2.0 * math.pi)
        for i in range(1, 16)
    ]
)


def _stirling(n: Array) -> Array:
    # ln n! less Stirling's formula, for n >= 1.
    large = np.maximum(n, 16.0)
    inverse = 1.0 / large
    square = inverse**2
    series = 1 / 1260 - square * (1 / 1680 - square * (1 / 1188 - square * 691 / 360360))
    series = inverse * (1 / 12 - square * (1 / 360 - square * series))
    return np.where(n < 16.0, _FACTORIALS[np.minimum(n, 15.0).astype(np.intp)], series)


def _excess(r: Array, one_plus: Array) -> Array:
    # r - log(1+r) without cancellation, given 1+r by itself as well.
    z = r / (2.0 + r)
    small = np.abs(z) < 0.1
    square = np.where(small, z, 0.0) ** 2
    series = np.zeros_like(r)
    for odd in range(19, 1, -2):  # log(1+r) = 2 (z + z³/3 + z⁵/5 + ...)
        series = series * square + 1.0 / odd
    return np.where(small, z * (r - 2.0 * square * series), r - np.log(one_plus))


def _surplus(n: Array, x: Array, k: Array) -> Array:
    # n x - k, with the product in two floats (Dekker 1971).
    def split(value: Array) -> tuple[Array, Array]:
        scaled = value * 134217729.0
        high = scaled - (scaled - value)
        return high, value - high

    product = n * x
    (a, b), (c, d) = split(n), split(x)
    error = ((a * c - product) + a * d + b * c) + b * d
    return (product - k) + error


def log_tail(n: Array, k: Array, x: Array, y: Array, d: Array) -> tuple[Array, Array]:
    """Compute ln P(Bin(n, x) <= k), and minus its derivative in x.

    Args:
        n: numbers of trials, at most `LARGEST`, of shape (m,).
        k: from 1 to n-2.
        x: probabilities inside (0, 1).
        y: 1 - x.
        d: n x - k.

    Returns:
        Both, of shape (m,).
    """
    rest = n - k
    exponent = k * _excess(d / k, n * x / k) + rest * _excess(-d / rest, n * y / rest)
    log_mass = (
        _stirling(n)
        - _stirling(k)
        - _stirling(rest)
        - 0.5 * np.log(2.0 * np.pi * k * (rest / n))
        - exponent
    )
    # The integrand's exponent is -s slope - k excess(s y/x) - m excess(-s).
    m, slope, odds = rest - 1.0, (d - x) / x, y / x
    reach = 2.0 * _REACH
    cut = np.minimum(1.0, reach / (slope + np.sqrt(slope**2 + reach * m)))
    cut = np.minimum(cut, (_REACH / k + np.sqrt((_REACH / k) ** 2 + reach / k)) / odds)
    s = cut[:, None] * _NODES
    u = s * odds[:, None]
    integrand = np.exp(
        -s * slope[:, None] - k[:, None] * _excess(u, 1.0 + u) - m[:, None] * _excess(-s, 1.0 - s)
    )
    factor = rest * cut * (integrand @ _WEIGHTS)
    return log_mass + np.log(factor), rest / (y * factor)


def _start(n: Array, k: Array, failure: Array, upper: bool, likely: bool) -> Array:
    # SciPy's root where it is one; else a point where the smaller tail is too small still, from
    # which Newton's method comes to the root from one side.
    a, b = (k + 1.0, n - k) if upper else (k, n - k + 1.0)
    invert, tail = (betainccinv, betaincc) if upper else (betaincinv, betainc)
    root = np.asarray(invert(a, b, failure), dtype=np.float64)
    sound = np.abs(np.asarray(tail(a, b, root)) - failure) <= 1e-3 * np.minimum(
        failure, 1.0 - failure
    )
    if np.all(sound):
        return root
    mirrored = upper == likely
    least = k if not likely else (k + 1.0 if upper else k - 1.0)
    below = n - least if mirrored else least
    exponent = -np.log1p(-failure) if likely else -np.log(failure)
    far = np.asarray(kernel_of(kl_inverse)(empirical_risk=below / n, bound=exponent / n))
    if mirrored:
        power = least / (np.e * n) * np.exp(-exponent / least)  # P(X >= j) <= (e n x / j)^j
        far = np.maximum(power, 1.0 - far - 1e-15)
    return np.where(sound, root, far)


def _solve(n: Array, k: Array, failure: Array, upper: bool, likely: bool) -> Array:
    # The limit as a root of the log of the smaller tail; upper: k from 1 to n-2, lower: 2 to n-1.
    mirrored = upper == likely  # the tail is that of n - X, whose probability is 1 - x
    least = k if not likely else (k + 1.0 if upper else k - 1.0)
    below = n - least if mirrored else least
    aim = np.log1p(-failure) if likely else np.log(failure)
    slack = _LOG_SLACK * (1.0 - aim)
    aim = aim + slack if likely else aim - slack

    def miss(x: Array, rows: Rows) -> tuple[Array, Array]:
        d, y = _surplus(n[rows], x, least[rows]), 1.0 - x
        pair = (y, x, -d) if mirrored else (x, y, d)
        log, hazard = log_tail(n[rows], below[rows], *pair)
        return log - aim[rows], hazard

    x = np.clip(_start(n, k, failure, upper, likely), _LEAST, _MOST)
    rows = np.arange(len(n))
    for _ in range(_STEPS):
        above, hazard = miss(x[rows], rows)
        step = above / hazard
        x[rows] = np.clip(x[rows] - step if mirrored else x[rows] + step, _LEAST, _MOST)
        rows = rows[(np.abs(above) > slack[rows] / 8.0) & (np.abs(step) > 4e-16 * x[rows])]
        if not len(rows):
            break
    # The tail itself decides: move outward until it is certain.
    width, limit, rows = 2.0**-52, x.copy(), np.arange(len(n))
    while len(rows):
        limit[rows] = x[rows] * (1.0 + width if upper else 1.0 - min(width, 1.0))
        end = limit[rows] >= 1.0 if upper else limit[rows] <= _LEAST
        above, _ = miss(np.clip(limit[rows], _LEAST, _MOST), rows)
        rows = rows[~(end | (above >= 0.0 if likely else above <= 0.0))]
        width *= 2.0
    return np.minimum(limit, 1.0) if upper else np.where(limit <= _LEAST, 0.0, limit)


def binomial_limit(n: Array, k: Array, failure: Array, *, upper: bool) -> Array:
    """Compute the Clopper-Pearson limit, rounded outward.

    The upper limit x has P(Bin(n, x) <= k) <= δ, the lower one P(Bin(n, x) >= k) <= δ. There
    the tail is above δ (1 - 1e-10), or is above δ within 4 units of the last place of x.

    Args:
        n: numbers of trials, whole, from 1 to `LARGEST`, of shape (m,).
        k: numbers of successes, from 0 to n.
        failure: δ in [0, 1].
        upper: which limit.

    Returns:
        The limits in [0, 1], of shape (m,).
    """
    found = np.full(n.shape, 1.0 if upper else 0.0)
    # With a = ln(δ)/n and b = ln(1-δ)/n, four limits are 1 - e^a, e^b, e^a and 1 - e^b.
    a, b = np.log(failure) / n, np.log1p(-failure) / n
    none, one = (k == 0.0, k == n - 1.0) if upper else (k == n, k == 1.0)
    ends = (-np.expm1(a), np.exp(b)) if upper else (np.exp(a), -np.expm1(b))
    # An error of the exponent counts in e^a, not in 1 - e^a.
    raised = (None, b) if upper else (a, None)
    for where, exponent, value in ((one, raised[1], ends[1]), (none, raised[0], ends[0])):
        slack = 1e-15 if exponent is None else 1e-15 * (1.0 - np.where(where, exponent, 0.0))
        outward = value * (1.0 + slack if upper else 1.0 - slack)
        found = np.where(where, np.clip(outward, 0.0, 1.0), found)
    open_ = ~none & ~one & (k < n if upper else k > 0.0) & (failure > 0.0)
    found = np.where(open_ & (failure == 1.0), 0.0 if upper else 1.0, found)
    for likely in (False, True):
        rows = np.flatnonzero(open_ & ((failure > 0.5) == likely) & (failure < 1.0))
        for first in range(0, len(rows), _CHUNK):
            part = rows[first : first + _CHUNK]
            found[part] = _solve(n[part], k[part], failure[part], upper, likely)
    return found
