"""The sparsity that masks really give an update, against the one that theory predicts."""

from dataclasses import dataclass

import torch
from torch import nn

from lora_bounds.bounds.laws import mask_law
from lora_dropout.adapters.layer import need_masked_layers
from lora_dropout.adapters.use_masks import sample_masks
from lora_dropout.door import Confidence, Held, checked, unchecked
from lora_dropout.masks.draw import LayerMask
from lora_dropout.probes.intervals import Interval, clopper_pearson_interval


@dataclass(frozen=True)
class Sparsity:
    """Share of entries of a masked B A that the masks set to zero.

    Attributes:
        expected: 2p - p^2 for `row_column` (arXiv 2404.09610 v1, Section 4.1), p for `entrywise`,
            p^r for `rank`: an entry survives while any rank component does (a mean over entries,
            if layers differ in rank).
        realised: Mean over draws and entries.
        layers: The same, layer by layer.
        interval: For the probability that an entry is dropped. Entries of one draw share rows and
            columns; independent are the mask bits. So the interval is Clopper and Pearson's for
            the rate of the bits, put through the formula of `expected`, which is increasing: it
            covers with at least its confidence.
        rate: Interval for the rate p of the bits.
        bits: Number of bits drawn.
    """

    expected: float
    realised: float
    layers: dict[str, float]
    interval: Interval
    rate: Interval
    bits: int


@checked
def realised_sparsity(
    model: nn.Module,
    *,
    n_draws: Held = 100,
    generator: torch.Generator | None = None,
    confidence: Confidence = 0.95,
) -> Sparsity:
    """Draw masks and count zeros.

    Args:
        model: An adapted model, or a PEFT model with masks attached; its factors may be anything,
            only masks count.
        n_draws: Number of draws.
        generator: CPU generator of the masks; None is torch's global one.
        confidence: Of the intervals.

    Returns:
        Predicted and realised sparsity.

    Raises:
        ValueError: If the law masks no entries of B A (`activation` masks inputs, `none` nothing),
            or the layers have several laws or rates.
    """
    specs = {name: layer.spec for name, layer in need_masked_layers(model).items()}
    settings = {(spec.law, spec.dropout) for spec in specs.values()}
    if len(settings) > 1:
        raise ValueError(f"model must have one mask law and rate, got {sorted(settings)}")
    ((name_of_law, dropout),) = settings
    if name_of_law not in ("row_column", "entrywise", "rank"):
        raise ValueError(
            f"mask must be a law that masks B A (row_column, entrywise, rank), got {name_of_law!r}"
        )
    law = mask_law(name_of_law)
    masks = unchecked(sample_masks)(model, n_instances=n_draws, generator=generator)
    dropped, bits, zeros, entries = 0, 0, 0.0, 0
    layers = {}
    for name, spec in specs.items():
        mask, size = masks.layers[name], spec.out_features * spec.in_features
        for part in (mask.rows, mask.columns, mask.ranks, mask.entries):
            if part is not None:
                dropped += int((~part).sum())
                bits += part.numel()
        layers[name] = _zeros(mask)
        zeros, entries = zeros + layers[name] * size, entries + size
    rate = clopper_pearson_interval(dropped, bits, confidence=confidence)

    def predicted(p: float) -> float:
        each = (
            float(law.drop_probability(dropout=p, rank=s.rank)) * s.out_features * s.in_features
            for s in specs.values()
        )
        return sum(each) / entries

    return Sparsity(
        expected=predicted(dropout),
        realised=zeros / entries,
        layers=layers,
        interval=Interval(predicted(rate.low), predicted(rate.high), confidence),
        rate=rate,
        bits=bits,
    )


def _zeros(mask: LayerMask) -> float:
    if mask.rows is not None and mask.columns is not None:
        kept = mask.rows.double().mean(dim=1) * mask.columns.double().mean(dim=1)
        return 1.0 - float(kept.mean())
    if mask.ranks is not None:
        return float((~mask.ranks.any(dim=1)).double().mean())
    assert mask.entries is not None
    return float((~mask.entries).double().mean())
