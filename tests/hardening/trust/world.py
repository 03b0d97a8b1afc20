"""What the attacks on trust need: a tiny model, data, a trained run; a mark that code leaves."""

import contextlib
import functools
import importlib.util
import io
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lora_dropout import __main__ as cli
from tests.lora_dropout.tasks.tiny import save_tiny_bert

_ROOT = tempfile.TemporaryDirectory(prefix="trust-")
NO_NETWORK = Path(__file__).parent / "no_network"


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def plain_pickle(mark: Path) -> bytes:
    return pickle.dumps({"settings": Bomb(mark)})


def torch_zip(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"settings": {}, "weights": torch.zeros(2), "bomb": Bomb(mark)}, buffer)
    return buffer.getvalue()


def torch_legacy(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"settings": Bomb(mark)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


BOMBS: dict[str, Callable[[Path], bytes]] = {
    "pickle": plain_pickle, "torch": torch_zip, "old torch": torch_legacy
}  # fmt: skip


@functools.cache
def guard() -> Any:
    """The hook of `no_network`, off unless `forbidden` is entered."""
    path = NO_NETWORK / "sitecustomize.py"
    spec = importlib.util.spec_from_file_location("no_network_guard", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def forbidden() -> Iterator[list[str]]:
    """Forbid other machines to this process; what it tried is in the list."""
    module, seen = guard(), list[str]()
    before, module.SEEN = module.SEEN, seen
    try:
        yield seen
    finally:
        module.SEEN = before


def command(*arguments: object) -> tuple[int, str]:
    """Run `lora-dropout` here; its status and all that it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = cli.main([str(argument) for argument in arguments])
    return status, printed.getvalue()


def fresh() -> Path:
    return Path(tempfile.mkdtemp(dir=_ROOT.name))


@functools.cache
def base() -> Path:
    return save_tiny_bert(fresh() / "bert")


@functools.cache
def data() -> Path:
    folder = fresh() / "sst2"
    folder.mkdir()
    lines = [
        f"the {noun} is {start}{word}\t{label}"
        for noun in ("film", "plot", "cast", "story")
        for start in ("", "very ", "not ")
        for label, word in ((1, "good"), (1, "nice"), (0, "bad"), (0, "poor"))
    ]
    for name, part in (("train", lines[::2]), ("dev", lines[1::2])):
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *part]) + "\n")
    return folder


def train_options(output: Path, *more: object, model: Path | str | None = None) -> list[object]:
    quick = ["--epochs", 1, "--batch-size", 12, "--instances", 2, "--eval-instances", 2]
    where = ["--model", model or base(), "--task", "sst2", "--data", data(), "--output", output]
    return ["train", *where, *quick, *more]


@functools.cache
def _trained() -> tuple[Path, tuple[str, ...]]:
    output = fresh() / "run"
    options = train_options(output)
    with forbidden() as seen:
        status, printed = command(*options)
    assert status == 0, printed
    return output, tuple(seen)


def trained() -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(_trained()[0], fresh() / "run"))


@functools.cache
def one_run() -> Path:
    """A copy that all who write nothing else into it share."""
    return trained()


def reached_in_training() -> tuple[str, ...]:
    """What other machines the training tried to reach."""
    return _trained()[1]


def stopped() -> Path:
    """A copy of a run of two epochs that `--resume` goes on with after the first."""
    folder = trained()
    (folder / "run.json").unlink()
    settings = json.loads((folder / "started.json").read_text())["settings"]
    edit(folder / "started.json", settings={**settings, "epochs": 2.0})
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
