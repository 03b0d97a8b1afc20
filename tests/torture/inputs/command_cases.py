"""Valid command lines of both commands, and what they must answer to wild ones.

A command runs in this process and in a folder of its own. It must end with status 0 (and print no
NaN), or 2 with a message on standard error that names a flag; it must leave no half-written file.
"""

import contextlib
import functools
import io
import itertools
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from lora_bounds import __main__ as bounds_cli
from lora_dropout import __main__ as cli
from tests.torture.inputs.wild import Case, RefusedError, Valid, things
from tests.torture.inputs.wild import numbers as wild_numbers

os.environ.setdefault("HF_HUB_OFFLINE", "1")

_ROOT = tempfile.TemporaryDirectory(prefix="torture-")
_NUMBER = itertools.count()


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


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before, variables = Path.cwd(), dict(os.environ)
    folder.mkdir()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(variables)


def answer(main: Callable[[list[str]], int], argv: list[str], names: set[str]) -> str:
    """Run a command and judge how it ends.

    Returns:
        What it printed.

    Raises:
        RefusedError: If it ends with status 2 and says why.
        AssertionError: If it is mishandled.
    """
    out, err = io.StringIO(), io.StringIO()
    folder = Path(_ROOT.name) / str(next(_NUMBER))
    with _inside(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries; PEFT and transformers have many
            try:
                status = main(argv)
            except SystemExit as end:  # argparse's
                status = end.code if isinstance(end.code, int) else 99
        left = [path.name for path in folder.rglob("*") if ".tmp" in path.name]
    shutil.rmtree(folder)
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


def done(arguments: dict[str, Any], result: Any) -> None:
    """`answer` has judged already."""


def command(
    name: str,
    main: Callable[[list[str]], int],
    start: Callable[[], list[str]],
    options: Mapping[str, Any],
    *,
    share: float = 1.0,
) -> Case:
    """A command with flags of which one or two are replaced; a flag of None is left out."""

    def call(**given: Any) -> str:
        argv = start()
        for flag, value in given.items():
            if flag.startswith("--") and value is not None:
                argv += [flag, *(value if isinstance(value, list) else [str(value)])]
            elif value is not None:
                argv.append(str(value))
        names = {flag.lstrip("-") for flag in given} | {"command", "claim"}
        return answer(main, argv, names)

    valid: Valid = st.fixed_dictionaries(
        {key: v if isinstance(v, st.SearchStrategy) else st.just(v) for key, v in options.items()}
    )
    return Case(name, call, valid, done, wild=texts(), bend=lambda value: None, share=share)


@functools.cache
def _tiny() -> tuple[Path, Path, Path]:
    """A model, data of two sentences a class, and a finished training."""
    from tests.lora_dropout.tasks.tiny import save_tiny_bert

    root = Path(_ROOT.name)
    bert = save_tiny_bert(root / "bert")
    data = root / "data"
    data.mkdir()
    for name, words in (("train", ("good", "bad", "great", "awful")), ("dev", ("nice", "poor"))):
        rows = [f"the {noun} is {w}\t{1 - k % 2}" for noun in ("film", "plot")
                for k, w in enumerate(words)]  # fmt: skip
        (data / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    run = root / "run"
    argv = ["train", "--model", str(bert), "--task", "sst2", "--data", str(data), "--output",
            str(run), "--epochs", "1", "--instances", "2", "--eval-instances", "2"]  # fmt: skip
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with quiet[0], quiet[1], warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert cli.main(argv) == 0
    return bert, data, run


def _train() -> list[str]:
    bert, data, _ = _tiny()
    return ["train", "--model", str(bert), "--data", str(data)]


def _file() -> str:
    return str(_tiny()[1] / "dev.tsv")


TRAINING: dict[str, Any] = {
    "--task": "sst2", "--rank": "2", "--alpha": "4", "--mask": "row_column", "--instances": "2",
    "--mode": "loop", "--dropout": "0.5", "--learning-rate": "0.001", "--batch-size": "4",
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
    "--eval-instances": "2", "--eval-batch-size": "8", "--seed": "0", "--task": None,
}  # fmt: skip
# An empty folder: a comparison that is not refused before ends at its data, not after minutes.
COMPARING: dict[str, Any] = TRAINING | {
    "--dropout": "0.5", "--ordinary-dropout": "0.1", "--seeds": "2", "--tune-seeds": "1",
    "--n-validation": "4", "--jobs": "1", "--engine": "local", "--gpus-per-run": "0",
    "--learning-rates": "0.001", "--n-train": "4", "--max-length": "16",
}  # fmt: skip
COMPARING.pop("--learning-rate")
COMPARING.pop("--seed")
BOUND: dict[str, Any] = {
    "--n": "3668", "--dropout": "0.5", "--delta": "0.05", "--lipschitz": "1", "--curvature": "0",
    "--regularization": "1", "--loss-range": "1", "--empirical-risk": "0.1",
    "--squared-norm": "20", "--width": "0.3", "--feldman-vondrak-constant": None,
}  # fmt: skip


def yaml_values() -> st.SearchStrategy[Any]:
    """What YAML can say as a value, and what it should not."""
    plain = st.one_of(
        wild_numbers(), things(), texts(), st.lists(texts(), max_size=3), st.dates(),
        st.dictionaries(texts(), texts(), max_size=2),
    )  # fmt: skip
    laughs = "&a [x,x,x,x,x,x,x,x,x]"
    for old, new in itertools.pairwise("abcdefghi"):
        laughs = f"&{new} [{laughs}{f',*{old}' * 8}]"
    raw = [
        "!!python/object/apply:os.system ['touch torture.tmp']", "!!python/name:os.system", "*no",
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


def _from_file(kind: str, options: Mapping[str, Any], share: float) -> Case:
    keys = {flag.removeprefix("--"): value for flag, value in options.items() if value is not None}

    def call(text: str, **given: Any) -> str:
        folder = Path(tempfile.mkdtemp(dir=_ROOT.name))
        lines = [f"{key}: {value}" for key, value in given.items()]
        path = folder / "settings.yaml"
        path.write_bytes("\n".join([*lines, text]).encode("utf-8", "surrogateescape"))
        argv = [*_train(), "--output", "out", "--config", str(path), "--dry-run"]
        return answer(cli.main, argv, {*given, "config"})

    valid = st.fixed_dictionaries(
        {"text": st.just("")} | {key: st.just(value) for key, value in keys.items()}
    )
    return Case(
        f"lora-dropout {kind}", call, valid, done, wild=yaml_values(), bend=lambda value: None,
        share=share,
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    command("lora-bounds bound", bounds_cli.main, lambda: ["bound"], BOUND, share=3.0),
    command("lora-bounds show", bounds_cli.main, lambda: ["show"], {"id": "Thm 4.4"}, share=0.3),
    command(
        "lora-bounds verify", bounds_cli.main, lambda: ["verify", "--json", "found.json"],
        {"--only": "T5, rank masks"}, share=0.25,
    ),
    command(
        "lora-bounds verify --only", bounds_cli.main, lambda: ["verify", "--only", "no such claim"],
        {"--json": "found.json", "--only": "T5, rank masks"}, share=0.25,
    ),
    command(
        "lora-dropout train --dry-run", cli.main, lambda: [*_train(), "--dry-run"],
        TRAINING | MORE,
    ),
    _from_file("train --config --dry-run", TRAINING | MORE, 1.0),
    command(
        "lora-dropout train", cli.main, lambda: [*_train(), "--output", "out", "--epochs", "1"],
        ONCE | {"--max-length": "16", "--eval-instances": "2"}, share=0.25,
    ),
    command(
        "lora-dropout train --replay", cli.main, lambda: ["train"],
        {"--replay": st.builds(lambda: str(_tiny()[2])), "--seed": None, "--data": None}, share=0.1,
    ),
    command(
        "lora-dropout evaluate", cli.main,
        lambda: ["evaluate", str(_tiny()[2]), "--data", str(_tiny()[1])],
        USING | {"--split": st.sampled_from([None, "dev"]), "--json": "found.json"}, share=0.25,
    ),
    command(
        "lora-dropout predict", cli.main, lambda: ["predict", str(_tiny()[2])],
        USING | {"--output": "found.jsonl"} | {"--input": st.builds(_file)}, share=0.25,
    ),
    command(
        "lora-dropout compare", cli.main,
        lambda: ["compare", "--model", str(_tiny()[0]), "--data", ".", "--output", "out"],
        COMPARING,
    ),
)  # fmt: skip
