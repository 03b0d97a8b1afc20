"""What the figure of the mask laws prints of them, against its caption and against real masks."""

import csv
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lora_dropout import LoRADropoutConfig, adapt
from lora_dropout.probes.realised_sparsity import realised_sparsity
from paper_figures.figures.mask_laws import LAWS, RANK, entries_dropped

GALLERY = Path(__file__).parents[2] / "paper_figures" / "gallery"


@pytest.mark.parametrize("name", LAWS)
def test_printed_numbers_are_those_of_real_masks(name: str) -> None:
    law, rate, _ = LAWS[name]
    with open(GALLERY / "mask_laws_table.csv", newline="") as file:
        printed = {row["law"]: float(row["entries dropped"]) for row in csv.DictReader(file)}
    assert printed.keys() == LAWS.keys()
    assert printed[name] == round(entries_dropped(law, rate), 4)
    if law in ("none", "activation"):
        assert printed[name] == 0.0
        return
    model = nn.Sequential(nn.Linear(20, 30))
    adapt(model, LoRADropoutConfig(rank=RANK, dropout=rate, mask=law))
    draws = {"rank": 3000}.get(law, 100)
    measured = realised_sparsity(
        model, n_draws=draws, generator=torch.Generator().manual_seed(0), confidence=0.999
    )
    low, high = measured.interval.low - 1e-4, measured.interval.high + 1e-4  # printed rounded
    assert low <= printed[name] <= high
    assert measured.realised == pytest.approx(printed[name], abs=0.02)


def test_the_caption_s_three_in_four() -> None:
    caption = json.loads((GALLERY / "mask_laws.json").read_text())["caption"]
    assert "as many entries of B A as rows and columns at p = 0.5 (three in four)" in caption
    assert entries_dropped("row_column", 0.5) == 0.75
    law, rate, _ = LAWS["entries, p = 0.75"]
    assert (law, entries_dropped(law, rate)) == ("entrywise", 0.75)
