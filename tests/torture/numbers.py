"""Extremes of the formulas, low precision, ill-conditioned problems, iterations that do not end."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from flint import arb, fmpq, fmpq_mat
from mpmath import mp
from torch import Tensor, nn
from torch.nn import functional as F

import lora_bounds as lb
import lora_dropout as ld
from lora_dropout.probes.curvature import Spectrum
from lora_dropout.tasks.digits import digits_target, pretrain_digits
from tests.lora_bounds.balls import ball, q_of
from tests.torture.report import Row

E = arb(1).exp()
N = (1, 2, 3, 2**20 + 1, 10**12, 2**53)
DELTA = (1e-300, 1e-16, 0.05, 1 - 2**-53, 1.0)
P = (0.0, 5e-324, 1e-300, 1e-17, 1e-16, 0.5, 1 - 2**-52, 1 - 2**-53, 1.0)
CURVATURE = (0.0, 5e-324, 1e-300, 1.0, 1e300)
LAMBDA = (1e-300, 1e-160, 1.0, 1e150, 1e300)
LIPSCHITZ = (0.0, 1e-160, 1.0, 1e12, 1e150)
BETA = (0.0, 1e-300, 1e-12, 1.0, 1e300)
RANGE = (1e-100, 1.0, 1e100)
RISK = (0.0, 1e-300, 0.5, 1.0)  # of the range
SLACK = 1e-11


def _prop_4_2(n: int, eta: float, least: float, lam: float, p: float) -> arb:
    denominator = (ball(least) + 2 * ball(lam) * q_of(p)) * n
    slope = 2 * ball(eta) ** 2
    if eta == 0:  # a constant loss does not change
        return arb(0)
    return arb("inf") if denominator == 0 else slope / denominator


def _thm_4_4(
    n: int, delta: float, eta: float, least: float, lam: float, p: float, c: float, share: float
) -> arb:
    denominator = ball(least) + 2 * ball(lam) * q_of(p)
    if denominator == 0 and eta > 0:
        return arb("inf")
    stable = 24 * ball(c) * ball(eta) ** 2 / denominator if eta > 0 else arb(0)
    inner = ball(c) ** 2 + stable
    return ball(c * share) + (inner / (2 * n * ball(delta))).sqrt()


def _lemma_4_3(n: int, delta: float, beta: float, c: float, share: float) -> arb:
    inner = ball(c) ** 2 + 12 * ball(c) * n * ball(beta)
    return ball(c * share) + (inner / (2 * n * ball(delta))).sqrt()


def _bousquet_elisseeff(n: int, delta: float, beta: float, c: float, share: float) -> arb:
    log = -ball(delta).log()
    stable = 2 * ball(beta) + (4 * n * ball(beta) + ball(c)) * (log / (2 * n)).sqrt()
    return ball(c * share) + stable


def _bkz(n: int, delta: float, beta: float, c: float, share: float) -> arb:
    gamma, order = 2 * ball(beta), -ball(delta).log()
    order = order if order > 2 else arb(2)
    inner = 24 * arb(2).sqrt() * gamma * (n - 1).bit_length() * order
    inner += 4 * ball(c) * (order / n).sqrt()
    return ball(c * share) + 2 * gamma + E * inner


def _fv_2018(n: int, delta: float, beta: float, c: float, share: float) -> arb:
    gamma = 2 * ball(beta) / ball(c)
    root = ((2 * gamma + arb(1) / n) * (8 / ball(delta)).log()).sqrt()
    return ball(c * share) + 8 * ball(c) * root


def _stable(bound: Callable[..., Any]) -> Callable[..., Any]:
    return lambda n, delta, beta, c, share: (
        bound(n=n, delta=delta, stability=beta, loss_range=c, empirical_risk=c * share).value
    )


_STABLE = (N, DELTA, BETA, RANGE, RISK)
# name, what the package says, the same in balls, and the values its arguments take
FORMULAS: tuple[tuple[str, Callable[..., Any], Callable[..., arb], tuple[Sequence[Any], ...]], ...]
FORMULAS = (
    (
        "Prop. 4.2",
        lambda n, eta, least, lam, p: lb.paper_stability(
            n=n, lipschitz=eta, curvature=least, regularization=lam, dropout=p).value,
        _prop_4_2, (N, LIPSCHITZ, CURVATURE, LAMBDA, P),
    ),
    (
        "Thm 4.4",
        lambda n, delta, eta, least, lam, p, c, share: lb.theorem_4_4(
            n=n, delta=delta, lipschitz=eta, curvature=least, regularization=lam, dropout=p,
            loss_range=c, empirical_risk=c * share).value,
        _thm_4_4, (N, DELTA, LIPSCHITZ, CURVATURE, LAMBDA, P, RANGE, RISK),
    ),
    ("Lemma 4.3", _stable(lb.lemma_4_3), _lemma_4_3, _STABLE),
    ("Bousquet-Elisseeff", _stable(lb.uniform_stability_bound), _bousquet_elisseeff, _STABLE),
    ("Bousquet-Klochkov-Zhivotovskiy", _stable(lb.bousquet_klochkov_zhivotovskiy), _bkz, _STABLE),
    ("Feldman-Vondrak 2018", _stable(lb.feldman_vondrak_2018), _fv_2018, _STABLE),
    (
        "Hoeffding",
        lambda n, delta, c, share: lb.hoeffding(
            n=n, delta=delta, loss_range=c, empirical_risk=c * share).value,
        lambda n, delta, c, share: ball(c * share)
        + ball(c) * (-ball(delta).log() / (2 * n)).sqrt(),
        (N, DELTA, RANGE, RISK),
    ),
    (
        "ensemble excess",
        lambda variance, n: lb.ensemble_excess(variance=variance, n_instances=n),
        lambda variance, n: ball(variance) / n,
        ((0.0, 1e-300, 1.0, 1e300), (1, 2, 7, 10**9, 10**12)),
    ),
)  # fmt: skip
# Values that are no bounds: to the nearest, on either side.
VALUES: tuple[tuple[str, Callable[[float], Any], Callable[[float], arb]], ...] = (
    ("2p - p²", lambda p: lb.drop_probability(dropout=p), q_of),
    ("(1-p)²", lambda p: lb.keep_probability(dropout=p), lambda p: (1 - ball(p)) ** 2),
    ("mask's mean", lambda p: ld.mean_factor("row_column", p), lambda p: (1 - ball(p)) ** 2),
)


def _distance(value: float, exact: arb) -> float:
    if not np.isfinite(value) or not exact.is_finite() or exact < ball(1e-290):
        return 0.0
    return abs(float((ball(value) - exact) / exact))


def bounds(most: int) -> Iterator[Row]:
    """Each formula at the corners of its domain: never below its exact value."""
    for name, call, exact, values in FORMULAS:
        corners = list(itertools.product(*values))
        corners = random.Random(0).sample(corners, min(most, len(corners)))
        held, worst, far, wrong = 0, 0.0, 0, ""
        for corner in corners:
            value, truth = float(call(*corner)), exact(*corner)
            above = np.isinf(value) or bool(truth <= ball(value))
            if name == "ensemble excess":  # an equation: to the nearest
                above = _distance(value, truth) <= 2**-52
            if not above:
                wrong = wrong or f"; first below at {corner}: {value!r}"
                continue
            held += 1
            gap = np.inf if np.isinf(value) and truth < ball(1e300) else _distance(value, truth)
            far += gap > SLACK
            worst = max(worst, gap if gap <= SLACK else 0.0)
        beyond = f"; {far} further above, where a part over- or underflows" * (far > 0)
        yield Row(
            f"{name} against ball arithmetic at extreme arguments", len(corners), held,
            note=f"relative distance at most {worst:.1e}{beyond}{wrong}",
        )  # fmt: skip
    tried, held, worst = 0, 0, 0.0
    for (_, plain, exactly), p in itertools.product(VALUES, P):
        error = _distance(float(plain(p)), exactly(p))
        tried, held, worst = tried + 1, held + (error <= 4 * 2**-53), max(worst, error)
    yield Row(
        "rates p within 1e-16 of 0 and 1: 2p - p², (1-p)², the mask's mean", tried, held,
        note=f"relative error at most {worst:.1e}; 4 unit roundoffs allowed",
    )  # fmt: skip


# training in low precision


def _small() -> nn.Module:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    made = ld.adapt(base, ld.LoRADropoutConfig(rank=2, dropout=0.3))
    with torch.no_grad():
        for parameter in ld.trainable_parameters(made).values():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.3)
    return made


def _digits(cache: list[nn.Module] = []) -> nn.Module:  # noqa: B006
    if not cache:
        cache.append(pretrain_digits(epochs=2, progress=False))
    model = type(cache[0])()
    model.load_state_dict(cache[0].state_dict())
    config = ld.LoRADropoutConfig(rank=2, dropout=0.3)
    return ld.adapt(model.double(), config, generator=torch.Generator().manual_seed(0))


def _descend(
    model: nn.Module, x: Tensor, y: Tensor, *, steps: int, autocast: bool = False, shake: float = 0
) -> Tensor:
    """Plain gradient descent under fixed masks; the factors at the end, in float64."""
    parameters = [*ld.trainable_parameters(model).values()]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.mul_(1 + shake * noise.to(parameter))
    for step in range(steps):
        masks = ld.sample_masks(model, seeds=torch.tensor([2 * step, 2 * step + 1]))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = sum(
                ld.instance_losses(model, x, y, masks=masks, mode="loop", loss_fn=F.cross_entropy)
            )
        grads = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, grads, strict=True):
                parameter.sub_(0.2 * slope)
    return torch.cat([parameter.detach().double().flatten() for parameter in parameters])


_SHAKE = 1e-9
# Terms in the longest chain of sums of one step, forward and backward. Its error is about sqrt(k)
# unit roundoffs (Higham and Mary 2019, Theorem 2.4, lambda = 4: above 4 sqrt(k) u with
# probability 2 exp(-8) under its model).
_CHAIN = {"masked layers": 64, "digits transformer": 512}


def low_precision(steps: int) -> Iterator[Row]:
    """Training in float32 and bf16 against float64, by what rounding can do to it."""
    images, labels = digits_target(seed=0, n_train=16, n_validation=10).train
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = torch.arange(16) % 3
    problems: tuple[tuple[str, Callable[[], nn.Module], Tensor, Tensor], ...] = (
        ("masked layers", _small, x, y),
        ("digits transformer", _digits, images.double(), labels),
    )
    for name, make, inputs, targets in problems:
        start = torch.cat([p.detach().flatten() for p in ld.trainable_parameters(make()).values()])
        exact = _descend(make(), inputs, targets, steps=steps)
        shaken = _descend(make(), inputs, targets, steps=steps, shake=_SHAKE)
        growth = float((shaken - exact).norm() / exact.norm()) / _SHAKE
        moved = float((exact - start).norm() / exact.norm())
        for kind, unit, autocast in (("float32", 2.0**-24, False), ("bf16", 2.0**-8, True)):
            rounded = _descend(
                make().float(), inputs.float(), targets, steps=steps, autocast=autocast
            )
            error = float((rounded - exact).norm() / exact.norm())
            # Rounding enters with every step, in proportion to what the steps move, and at the
            # start; what has entered grows.
            allowed = max(growth, 1.0) * unit * (1 + moved * 4 * _CHAIN[name] ** 0.5)
            yield Row(
                f"{kind} training of the {name} against float64", 1, int(error <= allowed),
                note=f"{steps} steps: relative error of the factors {error:.1e}, "
                f"{error / unit:.1f} unit roundoffs; at most {allowed:.1e} allowed "
                f"(growth of an early error {growth:.2g}, moved by {moved:.2g})",
            )  # fmt: skip


# ill-conditioned problems


def _designs(count: int) -> Iterator[tuple[np.ndarray, np.ndarray, float, float]]:
    """Singular and badly conditioned designs with targets, lambda and p."""
    rng = np.random.default_rng(0)
    for k in range(count):
        n, d = int(rng.integers(3, 7)), int(rng.integers(1, 4))
        left = np.linalg.qr(rng.normal(size=(n, n)))[0][:, : min(n, d)]
        right = np.linalg.qr(rng.normal(size=(d, d)))[0][: min(n, d)]
        scales = 10.0 ** -rng.choice([0, 1, 4, 8, 12, 16, 160], size=min(n, d))
        x = (left * scales) @ right * 10.0 ** rng.choice([-100, -3, 0, 3, 100])
        if k % 4 == 0:
            x[:, -1] = x[:, 0]  # exactly singular for d > 1
        size = float(np.abs(x).max()) or 1.0
        lam = float(rng.choice([0.0, 1e-300, 1e-16, 1e-8, 1.0])) * size**2
        yield x, rng.normal(size=n), lam, float(rng.choice([1e-16, 0.5, 1 - 2**-53, 1.0]))


def _q(value: float) -> fmpq:
    exact = Fraction(float(value))
    return fmpq(exact.numerator, exact.denominator)


def _hessian(x: np.ndarray, lam: float, p: float, n: int) -> fmpq_mat:
    d = x.shape[1]
    rows = fmpq_mat(len(x), d, [_q(v) for v in x.ravel()])
    weight = 2 * _q(lam) * (2 * _q(p) - _q(p) ** 2) * n
    penalty = [weight if i == j else fmpq(0) for i in range(d) for j in range(d)]
    return rows.transpose() * rows + fmpq_mat(d, d, penalty)


def _exact_ridge(x: np.ndarray, y: np.ndarray, lam: float, p: float, n: int) -> list[fmpq] | None:
    """The minimiser in rational numbers; None where there is none alone."""
    rows = fmpq_mat(len(x), x.shape[1], [_q(v) for v in x.ravel()])
    right = fmpq_mat(len(y), 1, [_q(v) for v in y])
    hessian = _hessian(x, lam, p, n)
    if hessian.det() == 0:
        return None
    solved = hessian.solve(rows.transpose() * right)
    return [solved[i, 0] for i in range(x.shape[1])]


def _near(found: np.ndarray, exact: list[fmpq], condition: float, whole: list[fmpq]) -> bool:
    with mp.workdps(60):
        truth, other = ([mp.mpf(int(e.p)) / mp.mpf(int(e.q)) for e in v] for v in (exact, whole))
        error = mp.norm([mp.mpf(float(f)) - t for f, t in zip(found, truth, strict=True)])
        size = max(mp.norm(truth), mp.norm(other))
        # A solver of backward error 100 unit roundoffs, on the normal equations.
        return bool(error <= 100 * condition * 2.0**-53 * size)


def _solves(
    found: np.ndarray, x: np.ndarray, y: np.ndarray, kept: np.ndarray, lam: float, p: float
) -> bool:
    n = len(x)
    exact = _exact_ridge(x[kept], y[kept], lam, p, n)
    if exact is None:
        return False
    condition = _condition(x, lam, p, n)
    if len(kept) < n:
        # 1 - h_i is what the leave-one-out formula divides by.
        left = _hessian(x[kept], lam, p, n).det() / _hessian(x, lam, p, n).det()
        condition *= _condition(x[kept], lam, p, n) * float(Fraction(int(left.q), int(left.p)))
    whole = _exact_ridge(x, y, lam, p, n) or exact  # its step to the refit is what is computed
    return _near(found, exact, condition, whole)


def _condition(x: np.ndarray, lam: float, p: float, n: int) -> float:
    size = float(np.abs(x).max()) or 1.0
    scaled = x / size
    weight = 2.0 * (lam / size / size) * (2 * p - p * p) * n
    values = np.linalg.eigvalsh(scaled.T @ scaled + weight * np.eye(x.shape[1]))
    return float(values[-1] / values[0]) if values[0] > 0 else np.inf


def ridge(count: int) -> Iterator[Row]:
    """Ridge and leave-one-out against rational arithmetic; logistic regression against mpmath."""
    for name in ("ridge", "leave-one-out"):
        held = refused = 0
        for x, y, lam, p in _designs(count):
            n = len(x)
            common = {"inputs": x, "targets": y, "regularization": lam, "dropout": p}
            subsets = [np.arange(n)]
            if name == "leave-one-out":
                subsets = [np.delete(np.arange(n), i) for i in range(n)]
            try:
                if name == "ridge":
                    found = [lb.ridge_fit(**common).solution]
                else:
                    found = list(lb.leave_one_out(**common).solutions)
            except ValueError:
                refused, held = refused + 1, held + 1
                continue
            held += all(
                _solves(one, x, y, kept, lam, p) for one, kept in zip(found, subsets, strict=True)
            )
        yield Row(
            f"{name} of singular and badly conditioned designs against rational arithmetic",
            count, held,
            note=f"{refused} refused as not unique or beyond floats; the others within 100 unit "
            "roundoffs times the condition",
        )  # fmt: skip
    held = refused = 0
    for x, y, lam, p in _designs(count):
        labels = np.where(y > 0, 1.0, -1.0)
        try:
            fit = lb.logistic_fit(inputs=x, labels=labels, regularization=lam, dropout=p)
        except (ValueError, ArithmeticError):
            refused, held = refused + 1, held + 1
            continue
        size = float(np.abs(x).max()) * x.shape[1] ** 0.5
        # A margin is known to its own rounding, and the slope is no better known than it.
        margin = float(np.abs(x * fit.solution).sum(axis=1).max())
        allowed = 2e-12 * max(1.0, size) + 4 * 2.0**-53 * margin * size
        held += _logistic_gradient(x, labels, lam, p, fit.solution) <= allowed
    yield Row(
        "logistic regression of such designs: the gradient in mpmath", count, held,
        note=f"{refused} refused (no penalty, or Newton stopped and said so); the others have a "
        "gradient of at most 2e-12 of the inputs and the rounding of a margin",
    )  # fmt: skip


def _logistic_gradient(
    x: np.ndarray, y: np.ndarray, lam: float, p: float, theta: np.ndarray
) -> float:
    with mp.workdps(60):
        rate = mp.mpf(p)
        slope = [2 * mp.mpf(lam) * (2 * rate - rate**2) * mp.mpf(t) for t in theta.tolist()]
        for row, label in zip(x.tolist(), y.tolist(), strict=True):
            margin = label * mp.fsum(
                mp.mpf(a) * b for a, b in zip(row, theta.tolist(), strict=True)
            )
            pull = label / (1 + mp.exp(margin)) / len(x)
            slope = [s - pull * a for s, a in zip(slope, row, strict=True)]
        return float(mp.norm(slope))


def spectra(count: int) -> Iterator[Row]:
    """Both ends of a spectrum by Lanczos with too few restarts: right, or None."""
    rng = np.random.default_rng(0)
    held = silent = found = 0
    for k in range(count):
        size = int(rng.integers(20, 60))
        basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
        values = np.sort(
            [
                rng.normal(size=size),
                np.linspace(-1, 1, size),
                1.0 + 1e-6 * rng.normal(size=size),
                np.r_[np.zeros(size - 2), -1e-3, 1e3],
                10.0 ** rng.uniform(-12, 3, size),
                -(10.0 ** rng.uniform(-3, 3, size)),
            ][k % 6]
        )
        matrix = (basis * values) @ basis.T
        matrix = (matrix + matrix.T) / 2
        restarts = [1, 2, 3, 10, None][k % 5]
        got = Spectrum(0, 1e-10, restarts, k).extremes(lambda v, m=matrix: v @ m, size)
        true = np.linalg.eigvalsh(matrix)
        slack = 1e-6 * (true[-1] - true[0])
        ends = ((got.least, true[0]), (got.leading, true[-1]))
        held += all(value is None or abs(value - end) <= slack for value, end in ends)
        silent += sum(value is None for value, _ in ends)
        found += sum(value is not None for value, _ in ends)
    yield Row(
        "Lanczos stopped early: an end of the spectrum is right, or None", count, held,
        note=f"{found} ends found, to 1e-6 of the range; {silent} said not to be found",
    )  # fmt: skip


def run(long: bool) -> Iterable[Row]:
    yield from bounds(3000 if long else 30)
    yield from low_precision(50 if long else 5)
    yield from ridge(1000 if long else 20)
    yield from spectra(1000 if long else 20)
