"""Mask laws: replay, independence, and exact moments by enumeration (arXiv 2404.09610, Eq. 2)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor

from lora_dropout import LAWS, LayerMask, mean_factor
from lora_dropout.adapters.update import masked_update
from lora_dropout.masks.bits import mix, name_key, random_bits, threshold_of
from lora_dropout.masks.draw import LayerSpec, draw_layer_masks, enumerate_layer_masks
from tests.lora_dropout.strategies import (
    ALGEBRA,
    IDENTITY,
    Shape,
    close,
    inner_rates,
    laws,
    normal,
    rates,
    seeds,
    shapes,
)

# A fair generator fails one of these binomial tests with probability below this (fixed seeds).
ERROR_PROBABILITY = 1e-6


def spec(law: str, p: float, shape: Shape, name: str = "layer") -> LayerSpec:
    return LayerSpec(name, law, p, shape.n1, shape.n2, shape.rank)  # type: ignore[arg-type]


def bits_of(mask: LayerMask) -> Tensor:
    """All keep-bits, (N, bits); law `activation` for an input of 3 rows."""
    if mask.keys is not None:
        return mask.activation_keep(torch.zeros(mask.n_instances, 3, 4)).flatten(1)
    parts = [t for t in (mask.rows, mask.columns, mask.ranks, mask.entries) if t is not None]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def assert_rate(successes: int, trials: int, rate: float) -> None:
    assert binomtest(successes, trials, rate).pvalue > ERROR_PROBABILITY


def test_bits_are_the_documented_hash() -> None:
    seed = torch.tensor([42])
    got = draw_layer_masks([spec("row_column", 0.3, Shape(3, 4, 2))], seed)["layer"]
    state = mix(mix(seed) + name_key("layer"))
    want = random_bits(state, torch.arange(7), threshold_of(0.3))
    assert torch.equal(bits_of(got)[0], want)


@given(laws(), rates(), shapes(), seeds(), st.integers(1, 5))
def test_shapes_and_exact_limits(law: str, p: float, shape: Shape, seed: int, n: int) -> None:
    mask = draw_layer_masks([spec(law, p, shape)], torch.arange(n) + seed)["layer"]
    assert mask.n_instances == n
    sizes = {
        "row_column": shape.n1 + shape.n2,
        "rank": shape.rank,
        "entrywise": shape.n1 * shape.n2,
        "activation": 12,
    }
    bits = bits_of(mask)
    assert bits.shape == (n, sizes[law])
    if p == 0:
        assert bits.all()
    if p == 1:
        assert not bits.any()


@given(laws(), inner_rates(), seeds(), st.permutations(["a", "b", "c"]), st.integers(1, 4))
def test_order_subsets_and_first_draws(
    law: str, p: float, seed: int, order: list[str], k: int
) -> None:
    layers = {n: spec(law, p, Shape(4, 5, 3), n) for n in "abc"}
    draws = torch.arange(4) * 7 + seed
    whole = draw_layer_masks(list(layers.values()), draws)
    shuffled = draw_layer_masks([layers[n] for n in order], draws)
    alone = draw_layer_masks([layers["b"]], draws[:k])
    for name in "abc":
        assert torch.equal(bits_of(whole[name]), bits_of(shuffled[name]))
    assert torch.equal(bits_of(alone["b"]), bits_of(whole["b"])[:k])


def test_threads_change_nothing() -> None:
    layer, draws = spec("entrywise", 0.4, Shape(300, 200, 3)), torch.arange(3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = bits_of(draw_layer_masks([layer], draws)["layer"])
        torch.set_num_threads(2)
        two = bits_of(draw_layer_masks([layer], draws)["layer"])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("law", LAWS)
def test_gpu_draws_the_same_masks(law: str) -> None:
    layers = [spec(law, 0.4, Shape(30, 20, 3), name) for name in "ab"]
    here = draw_layer_masks(layers, torch.arange(5))
    there = draw_layer_masks(layers, torch.arange(5), device="cuda")
    for name in "ab":
        for field in ("rows", "columns", "ranks", "entries", "keys"):
            ours, theirs = getattr(here[name], field), getattr(there[name], field)
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs.cpu())


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("law", ["row_column", "rank", "entrywise", "activation"])
def test_bits_have_their_rate(law: str, p: float) -> None:
    mask = draw_layer_masks([spec(law, p, Shape(9, 8, 4))], torch.arange(3000))["layer"]
    bits = bits_of(mask)
    assert_rate(int(bits.sum()), bits.numel(), 1 - p)
    # Every position by itself too (no position is special).
    for column in bits.unbind(1):
        assert_rate(int(column.sum()), len(column), 1 - p)


def test_rows_and_columns_layers_and_draws_are_pairwise_independent() -> None:
    shape, n = Shape(3, 2, 1), 4000
    layers = [spec("row_column", 0.5, shape, name) for name in ("a", "b")]
    drawn = draw_layer_masks(layers, torch.arange(n))
    bits = torch.cat([bits_of(drawn["a"]), bits_of(drawn["b"])], dim=1)  # (n, 10)
    for i in range(10):
        for j in range(i):
            agreements = int((bits[:, i] == bits[:, j]).sum())
            assert_rate(agreements, n, 0.5)
    for lag in (1, 2, 64):  # instances with close seeds
        agreements = int((bits[lag:] == bits[:-lag]).sum())
        assert_rate(agreements, bits[lag:].numel(), 0.5)


def test_one_layer_has_the_law_of_another_seed_not_its_bits() -> None:
    drawn = draw_layer_masks(
        [spec("entrywise", 0.5, Shape(40, 40, 1), n) for n in "ab"], torch.tensor([5])
    )
    assert not torch.equal(bits_of(drawn["a"]), bits_of(drawn["b"]))


# --- enumeration ------------------------------------------------------------------------------


def small_shapes() -> st.SearchStrategy[Shape]:
    return shapes(most=3)


@given(st.sampled_from(LAWS), rates(), small_shapes())
def test_enumeration_is_complete(law: str, p: float, shape: Shape) -> None:
    mask, probability = enumerate_layer_masks(spec(law, p, shape))
    assert float(probability.sum()) == pytest.approx(1.0, abs=IDENTITY)
    assert len(probability) == mask.n_instances
    if law == "none":
        assert mask.n_instances == 1
        return
    bits = mask.activations[:, 0] if mask.activations is not None else bits_of(mask)
    assert len(bits.unique(dim=0)) == len(bits) == 2 ** bits.shape[1]
    kept = bits.double()
    want = ((1 - p) * kept + p * (1 - kept)).prod(dim=1)  # oracle: product of marginals
    close(probability, want, IDENTITY)


def test_too_many_masks() -> None:
    with pytest.raises(ValueError, match=r"layer 'layer' has 2\^21 masks of law 'row_column'"):
        enumerate_layer_masks(spec("row_column", 0.5, Shape(10, 11, 2)))


def outputs_of_all_masks(x: Tensor, A: Tensor, B: Tensor, mask: LayerMask) -> Tensor:
    """(draws, examples, n1), one example at a time."""
    rows = [x[i].expand(mask.n_instances, -1) for i in range(len(x))]
    return torch.stack([masked_update(r, A, B, mask=mask, scaling=1.0) for r in rows], dim=1)


@given(st.sampled_from(LAWS), rates(), small_shapes(), seeds())
def test_mean_over_all_masks(law: str, p: float, shape: Shape, seed: int) -> None:
    A, B = normal(shape.rank, shape.n2, seed=seed), normal(shape.n1, shape.rank, seed=seed + 1)
    mask, probability = enumerate_layer_masks(spec(law, p, shape))
    outputs = outputs_of_all_masks(torch.eye(shape.n2, dtype=A.dtype), A, B, mask)
    mean = torch.einsum("k,kij->ji", probability, outputs)  # (n1, n2)
    close(mean, mean_factor(law, p) * (B @ A), ALGEBRA)  # type: ignore[arg-type]
    if law == "row_column":
        close(mean, (1 - p) ** 2 * (B @ A), ALGEBRA)


def variance_formula(law: str, p: float, A: Tensor, B: Tensor, sigma: Tensor) -> Tensor:
    """E ||h - E h||^2 in closed form, sigma = E x x'."""
    k, delta = 1 - p, B @ A
    full = torch.trace(delta @ sigma @ delta.T)
    diagonal = torch.trace(delta @ torch.diag(sigma.diag()) @ delta.T)
    if law == "row_column":
        return p * k**3 * full + p * k**2 * diagonal
    if law == "activation":
        return p / k * diagonal
    if law == "entrywise":
        return p * k * diagonal
    terms = [B[:, j].square().sum() * (A[j] @ sigma @ A[j]) for j in range(len(A))]
    return p * k * torch.stack(terms).sum()


@settings(max_examples=60)
@given(laws(), inner_rates(), small_shapes(), seeds(), st.integers(1, 4))
def test_variance_over_all_masks(law: str, p: float, shape: Shape, seed: int, n: int) -> None:
    A, B = normal(shape.rank, shape.n2, seed=seed), normal(shape.n1, shape.rank, seed=seed + 1)
    x = normal(n, shape.n2, seed=seed + 2)
    mask, probability = enumerate_layer_masks(spec(law, p, shape))
    outputs = outputs_of_all_masks(x, A, B, mask)
    mean = torch.einsum("k,kij->ij", probability, outputs)
    spread = (outputs - mean).square().sum(dim=2)  # (draws, examples)
    got = (probability @ spread).mean()
    want = variance_formula(law, p, A, B, x.T @ x / n)
    torch.testing.assert_close(got, want, rtol=ALGEBRA, atol=ALGEBRA)


def test_select_and_gather() -> None:
    mask = draw_layer_masks([spec("row_column", 0.5, Shape(3, 4, 2))], torch.arange(5))["layer"]
    assert torch.equal(bits_of(mask.select(3))[0], bits_of(mask)[3])
    picked = mask.gather(torch.tensor([4, 0, 4]))
    assert picked.n_instances == 3
    assert torch.equal(bits_of(picked), bits_of(mask)[[4, 0, 4]])
    for index in (-1, 5):
        with pytest.raises(IndexError, match=rf"index must be in \[0, 5\), got index={index}"):
            mask.select(index)


def test_enumerated_activation_masks_are_of_one_row() -> None:
    mask, _ = enumerate_layer_masks(spec("activation", 0.5, Shape(2, 3, 1)))
    with pytest.raises(ValueError, match="got x with 2 rows per instance"):
        mask.activation_keep(torch.zeros(8, 2, 3))


def test_masks_know_what_they_fit() -> None:
    mask = draw_layer_masks([spec("row_column", 0.5, Shape(3, 4, 2))], torch.arange(2))["layer"]
    mask.check_fits(spec("row_column", 0.5, Shape(3, 4, 1), "x"))
    with pytest.raises(ValueError, match=r"'x' needs columns of shape \(2, 1\), got \(2, 4\)"):
        mask.check_fits(spec("row_column", 0.5, Shape(3, 1, 1), "x"))
    assert mask.to("meta").device == torch.device("meta")
