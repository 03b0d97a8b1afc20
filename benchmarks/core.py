"""The table of ratios of the core: `python -m benchmarks.core [--rounds R] [--out FILE]`."""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks import bounds, masked_layers
from benchmarks.report import origin, write


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    what = f"{row['what']} / {row['against']}"
    if "batch" in row:
        what += f", batch {row['batch']}"
    ratio = row["time_ratio"]
    text = f"{what:<58} {ratio['median']:>9.4g} [{ratio['lower_quartile']:.4g}, "
    text += f"{ratio['upper_quartile']:.4g}]"
    if "added_seconds" in row:
        target = row["target_added_seconds"]
        return f"{text}  adds {row['added_seconds']:.2f} s (target {target} s)"
    return text if row.get("target") is None else f"{text}  target {row['target']:.3g}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/core.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = origin()
    rows = masked_layers.run(device, options.rounds) + bounds.run(options.rounds)
    write(options.out, {"provenance": source, "device": device.type, "rows": rows})
    print("time ratio: median [quartiles]")
    for row in rows:
        print(line(row))


if __name__ == "__main__":
    main()
