"""Both commands under wild command lines and settings files.

A command runs in this process and in a folder of its own. It must end with status 0 (and print no
NaN), or 2 with a message on standard error that names a flag; it must leave no half-written file.
"""

import contextlib
import io
import itertools
import os
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from lora_bounds import __main__ as bounds_cli
from lora_dropout import __main__ as cli
from tests.hardening.inputs.attack import Case, RefusedError, attack
from tests.hardening.inputs.wild import numbers, things
from tests.hardening.lengths import lengths
from tests.hardening.trust import world


def texts() -> st.SearchStrategy[Any]:
    """What can stand on a command line; no path that leads out of the folder."""
    fixed = [
        "nan", "inf", "-inf", "-1", "-0.0", "0", "1", "1e400", "1e-400", "0x10", "1_000", "３", "",
        " ", "--", "-", "--n", "1,5", "NaN", "True", "None", "[]", "nothing/here", ".", "~",
        "x" * 5000, "é", "\udcff", "\n", "%s", "%(x)s", "{0}", "1e309", "9" * 5000, "5e-324",
        "1e300", "1e-300", "0.5", "1e12", "2", "99999999999999999999", "row_column", "mrpc", "mmlu",
        "Thm 4.4", "$(id)", "-h ", "a\tb", "=", "--config", "raw", "all-linear", "*", "(", "[a-",
    ]  # fmt: skip
    drawn = st.one_of(
        st.floats().map(repr),
        st.integers(-10, 100).map(str),
        st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), max_size=6),
    )
    return st.one_of(st.sampled_from(fixed), drawn)


def yaml_values() -> st.SearchStrategy[Any]:
    """What YAML can say as a value, and what it should not."""
    plain = st.one_of(
        numbers(), things(), texts(), st.lists(texts(), max_size=3), st.dates(),
        st.dictionaries(texts(), texts(), max_size=2),
    )  # fmt: skip
    laughs = "&a [x,x,x,x,x,x,x,x,x]"
    for old, new in itertools.pairwise("abcdefghi"):
        laughs = f"&{new} [{laughs}{f',*{old}' * 8}]"
    raw = [
        "!!python/object/apply:os.system ['touch hardening.tmp']", "!!python/name:os.system", "*no",
        laughs, "&a [*a]", "[" * 3000, "{" * 500, "!!binary aGk=", "!!set {a, b}", "|", "? x",
        "2024-04-15", "0o17", "1e3", ".nan", ".inf", "-.inf", "0b1", "1:30", "~", "'", '"', "@",
        "`", "%", "\t", "a: b: c", "!!float 'x'", "!!int 'x'", "!!null x", "- 1", "<<: 1", "\x07",
        "!!timestamp x", "!!timestamp 2024-99-99", "9" * 5000, "{}", "[]", "yes", "no", "\ufeff",
    ]  # fmt: skip
    return st.one_of(st.sampled_from(raw), plain.map(_as_yaml))


def _as_yaml(value: Any) -> str:
    try:
        return yaml.safe_dump(value, default_flow_style=True).partition("\n...")[0].strip()
    except (yaml.YAMLError, RecursionError, ValueError, TypeError):
        return str(type(value).__name__)


def answer(main: Callable[[list[str]], int], argv: list[str], names: set[str]) -> str:
    """Run a command and judge how it ends.

    Returns:
        What it printed.

    Raises:
        RefusedError: If it ends with status 2 and says why.
        AssertionError: If it is mishandled.
    """
    out, err, variables = io.StringIO(), io.StringIO(), dict(os.environ)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        quiet = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with quiet[0], quiet[1], warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries; PEFT and transformers have many
            try:
                status = main(argv)
            except SystemExit as end:  # argparse's
                status = end.code if isinstance(end.code, int) else 99
            finally:
                os.environ.clear()
                os.environ.update(variables)
        left = [path.name for path in Path(place).rglob("*") if ".tmp" in path.name]
    said = err.getvalue()
    assert status in (0, 2), f"status {status}: {said[-300:]}"
    assert not left, f"half-written: {left}"
    assert "Traceback" not in said, said[-300:]
    if status == 2:
        spoken = said.replace("_", "-").lower()
        named = any(re.search(rf"(?<![a-z]){re.escape(n)}(?![a-z])", spoken) for n in names)
        named = named or ("[Errno" in said and any(value in said for value in argv))  # a file
        assert named, f"names no flag: {said[-300:]}"
        raise RefusedError(said)
    shown = out.getvalue()
    assert shown.strip(), "printed nothing"
    assert not re.search(r"\bnan\b", shown.lower().replace("'nan'", "")), f"NaN in {shown[-300:]}"
    return shown


def _judged(arguments: dict[str, Any], result: Any) -> None:
    """`answer` has judged already."""


def _valid(options: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    strategies = {
        k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in options.items()
    }
    return st.fixed_dictionaries(strategies)


def command(
    main: Callable[[list[str]], int], start: Callable[[], list[object]], options: dict[str, Any],
    share: float = 1.0,
) -> Case:  # fmt: skip
    """A command with flags of which one or two are replaced; a flag of None is left out."""

    def call(**given: Any) -> str:
        argv = [str(word) for word in start()]
        for flag, value in given.items():
            if value is not None:
                argv += [flag, str(value)] if flag.startswith("--") else [str(value)]
        return answer(main, argv, {flag.lstrip("-") for flag in given} | {"command", "claim"})

    return Case(
        "", call, _valid(options), _judged, wild=texts(), bend=lambda value: None, share=share
    )


def _train(*more: object) -> list[object]:
    return ["train", "--model", world.base(), "--data", world.data(), *more]


TRAINING: dict[str, Any] = {
    "--task": "sst2", "--rank": "2", "--alpha": "4", "--mask": "row_column", "--instances": "2",
    "--mode": "loop", "--dropout": "0.5", "--learning-rate": "0.001", "--batch-size": "24",
    "--warmup": "0.1", "--weight-decay": "0", "--seed": "0", "--epochs": "1",
}  # fmt: skip
ONCE = {flag: value for flag, value in TRAINING.items() if flag != "--epochs"}
MORE: dict[str, Any] = {
    "--max-length": "16", "--n-train": "4", "--adapter": "lora", "--eval-instances": "2",
    "--eval-batch-size": "8", "--precision": "float32", "--inference": "ensemble",
    "--target-modules": "all-linear", "--save-every": None, "--report-to": "none",
    "--revision": None, "--output": "out",
}  # fmt: skip
USING: dict[str, Any] = {
    "--max-length": "16", "--inference": st.sampled_from(["ensemble", "mean", "raw"]),
    "--eval-instances": "2", "--eval-batch-size": "32", "--seed": "0", "--task": None,
}  # fmt: skip
COMPARING = {k: v for k, v in TRAINING.items() if k not in ("--learning-rate", "--seed")} | {
    "--ordinary-dropout": "0.1", "--seeds": "2", "--tune-seeds": "1", "--n-validation": "4",
    "--jobs": "1", "--engine": "local", "--gpus-per-run": "0", "--learning-rates": "0.001",
    "--n-train": "4", "--max-length": "16",
}  # fmt: skip
BOUND: dict[str, Any] = {
    "--n": "3668", "--dropout": "0.5", "--delta": "0.05", "--lipschitz": "1", "--curvature": "0",
    "--regularization": "1", "--loss-range": "1", "--empirical-risk": "0.1",
    "--squared-norm": "20", "--width": "0.3", "--feldman-vondrak-constant": None,
}  # fmt: skip
QUICK_CLAIM = {"--only": "T5, rank masks", "--json": "found.json"}


def _from_file() -> Case:
    """`train --config --dry-run`, of whose settings one or two are other YAML."""
    keys = {k.removeprefix("--"): v for k, v in (TRAINING | MORE).items() if v is not None}

    def call(text: str, **given: Any) -> str:
        path = world.fresh() / "settings.yaml"
        lines = [f"{key}: {value}" for key, value in given.items()]
        path.write_bytes("\n".join([*lines, text]).encode("utf-8", "surrogateescape"))
        argv = _train("--output", "out", "--config", path, "--dry-run")
        return answer(cli.main, [str(word) for word in argv], {*given, "config"})

    valid = _valid({"text": "", **keys})
    return Case("", call, valid, _judged, wild=yaml_values(), bend=lambda value: None)


CASES: dict[str, Case] = {
    "lora-bounds bound": command(bounds_cli.main, lambda: ["bound"], BOUND, 3.0),
    "lora-bounds show": command(bounds_cli.main, lambda: ["show"], {"id": "Thm 4.4"}, 0.3),
    "lora-bounds verify": command(bounds_cli.main, lambda: ["verify"], QUICK_CLAIM, 0.3),
    "train --dry-run": command(cli.main, lambda: _train("--dry-run"), TRAINING | MORE, 0.5),
    "train --config --dry-run": _from_file(),
    "train": command(
        cli.main, lambda: _train("--output", "out", "--epochs", "1"),
        ONCE | {"--max-length": "16", "--eval-instances": "2"}, 0.25,
    ),
    "train --replay": command(
        cli.main, lambda: ["train"],
        {"--replay": st.builds(world.one_run), "--seed": None, "--data": None}, 0.1,
    ),
    "evaluate": command(
        cli.main, lambda: ["evaluate", world.one_run(), "--data", world.data()],
        USING | {"--split": st.sampled_from([None, "dev"]), "--json": "found.json"}, 0.25,
    ),
    "predict": command(
        cli.main, lambda: ["predict", world.one_run()],
        USING | {"--output": "found.jsonl", "--input": st.builds(lambda: world.data() / "dev.tsv")},
        0.25,
    ),
    # An empty folder: a comparison that is not refused before ends at its data, not after minutes.
    "compare": command(
        cli.main,
        lambda: ["compare", "--model", world.base(), "--data", ".", "--output", "out"], COMPARING,
    ),
}  # fmt: skip


@pytest.mark.parametrize("examples", lengths(4, 800))
@pytest.mark.parametrize("name", CASES)
def test_wild_command_lines(name: str, examples: int) -> None:
    attack(CASES[name], examples).check()
