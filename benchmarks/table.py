"""One table of all results with their targets: `python -m benchmarks.table [FOLDER]`."""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "results"


class Line(NamedTuple):
    """One comparison: `reached` is to be at most `target`."""

    what: str
    against: str
    reached: float
    target: float | None = None
    low: float | None = None
    high: float | None = None


def _ratio(what: str, against: str, ratio: dict[str, float], target: float | None = None) -> Line:
    low, high = ratio["lower_quartile"], ratio["upper_quartile"]
    return Line(what, against, ratio["median"], target, low, high)


def core_lines(found: dict[str, Any]) -> list[Line]:
    """Lines of `core.json`."""
    lines = []
    for row in found["rows"]:
        what = row["what"] + (f", batch {row['batch']}" if "batch" in row else "")
        if "added_seconds" in row:
            added, target = row["added_seconds"], row["target_added_seconds"]
            lines.append(
                Line(f"import {what}, seconds more", f"import {row['against']}", added, target)
            )
        else:
            lines.append(_ratio(what, row["against"], row["time_ratio"], row.get("target")))
    return lines


def peft_lines(found: dict[str, Any]) -> list[Line]:
    """Lines of `hf_step.json`."""
    lines = []
    for model, numbers in found["models"].items():
        rows = numbers["variants"]
        plain, dropout = rows["PEFT, lora_dropout=0"], rows["PEFT, lora_dropout=0.1"]
        ours = rows["attach, N=1"]
        lines.append(_ratio(f"{model}: step, N = 1", "PEFT, no dropout", ours["time_ratio"], 1.02))
        over = {
            key: ours["time_ratio"][key] / dropout["time_ratio"]["median"]
            for key in ours["time_ratio"]
        }
        lines.append(_ratio(f"{model}: step, N = 1", "PEFT, dropout 0.1", over, 1.0))
        for reference, name, target in ((dropout, "dropout 0.1", 1.0), (plain, "no dropout", None)):
            memory = max(ours["peak_mib"]) / min(reference["peak_mib"])
            lines.append(Line(f"{model}: peak memory, N = 1", f"PEFT, {name}", memory, target))
        for variant in ("grouped", "batched"):
            row = rows[f"attach, N=4, {variant}"]
            lines.append(
                _ratio(f"{model}: step, N = 4, {variant}", "PEFT, no dropout", row["time_ratio"])
            )
    return lines


def replica_lines(found: dict[str, Any]) -> list[Line]:
    """Lines of `replicas.json`."""
    lines = []
    for name, row in found["problems"].items():
        small = row["replicas"] == 512
        for other, target in (("loop", 1 / 30), ("joblib", 1 / 15)):
            ratio = row[f"throughput_over_{other}"]
            names = ("lower_quartile", "median", "upper_quartile")
            inverse = dict(zip(names, (1 / ratio[key] for key in reversed(names)), strict=True))
            what = f"{row['replicas']} replicas: {name}"
            against = (
                "a loop" if other == "loop" else f"joblib, {row['joblib_processes']} processes"
            )
            lines.append(_ratio(what, against, inverse, target if small else None))
    return lines


def convergence_lines(found: dict[str, Any]) -> list[Line]:
    """Lines of `convergence.json`."""
    lines = []
    for way, row in found["rows"].items():
        if way == "N = 4, loop":
            continue
        if row["seconds_to_goal_over_loop"] is not None:
            lines.append(
                Line(
                    f"time to a training loss: {way}",
                    "N = 4, loop",
                    row["seconds_to_goal_over_loop"],
                )
            )
        lines.append(
            Line(
                f"gradient variance times time: {way}",
                "N = 4, loop",
                row["variance_times_seconds_over_loop"],
            )
        )
    return lines


def layer_lines(found: dict[str, Any]) -> list[Line]:
    """Lines of `adapter_path.json`."""
    lines = []
    for row in found["rows"]:
        size = f"{row['width']} wide, {row['tokens']} tokens, rank {row['rank']}, {row['dtype']}"
        lines.append(_ratio(f"layer, {size}", "PEFT", row["layer"]["ours / PEFT"]))
        compiled = row["layer"]["ours, compiled / PEFT, compiled"]
        lines.append(_ratio(f"compiled layer, {size}", "PEFT, compiled", compiled))
    return lines


READERS = {
    "core": core_lines,
    "hf_step": peft_lines,
    "replicas": replica_lines,
    "convergence": convergence_lines,
    "adapter_path": layer_lines,
}


def all_lines(folder: Path) -> list[Line]:
    """Lines of all result files that a folder has."""
    lines = []
    for name, reader in READERS.items():
        file = folder / f"{name}.json"
        if file.exists():
            lines += reader(json.loads(file.read_text()))
    return lines


def table(lines: list[Line]) -> str:
    """A Markdown table."""
    out = ["| what | against | ratio [quartiles] | target | |", "|---|---|--:|--:|---|"]
    for line in lines:
        spread = "" if line.low is None else f" [{line.low:.3g}, {line.high:.3g}]"
        met = "" if line.target is None else "reached" if line.reached <= line.target else "missed"
        target = "" if line.target is None else f"{line.target:.3g}"
        out.append(
            f"| {line.what} | {line.against} | {line.reached:.3g}{spread} | {target} | {met} |"
        )
    return "\n".join(out)


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    print(table(all_lines(parser.parse_args().folder)))


if __name__ == "__main__":
    main()
