"""README and docs are true: links lead somewhere, commands and folders exist, code runs."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from lora_bounds.__main__ import main as bounds_command
from lora_dropout.__main__ import main as dropout_command
from paper_figures.__main__ import main as figures_command

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
COMMANDS = {
    "lora-bounds": bounds_command,
    "lora-dropout": dropout_command,
    "-m paper_figures": figures_command,
}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [target.split("#")[0] for target in found if not target.startswith("http")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target).exists(), target


def test_the_index_leads_to_every_page() -> None:
    index = DOCS / "README.md"
    listed = {(DOCS / target).resolve() for target in links(index)}
    assert {page for page in DOCS.rglob("*.md") if page != index} <= listed


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_targets_and_modules_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text, re.MULTILINE):
        assert target in TARGETS, target
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert find_spec(module) is not None, module
    for extra in re.findall(r"pip install '\.\[([^]]+)\]'", text):
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert set(extra.split(",")) <= set(known["optional-dependencies"]), extra


def _commands(page: Path) -> list[list[str]]:
    """The lines of code that call one of our commands: its name, then its arguments."""
    found = []
    for line in re.findall(r"^ {4}(\S.*)$", page.read_text(), re.MULTILINE):
        for command in COMMANDS:
            if re.match(rf"(\S*python )?{command} ", line):
                arguments = shlex.split(line.split(command, 1)[1], comments=True)
                found.append([command, *arguments])
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if _commands(page)], ids=name)
def test_commands_have_these_options(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, *arguments in _commands(page):
        named = arguments[:1] if command != "-m paper_figures" else []
        with pytest.raises(SystemExit, match=r"^0$"):
            COMMANDS[command]([*named, "--help"])
        shown = capsys.readouterr().out
        for option in arguments:
            assert not option.startswith("--") or option in shown.split(), (command, option)


def test_commands_are_found() -> None:
    assert len(_commands(DOCS / "how-to" / "command-line.md")) == 5
    assert len(_commands(ROOT / "README.md")) == 3


PEFT_DATA = """
import warnings
warnings.simplefilter("ignore")
from tests.lora_dropout.peft.test_trainer import Rows, arguments, base_model
base, train, dev = base_model("bert"), Rows("bert", 8), Rows("bert", 4)
args = arguments("trained")
"""


SLOW = {"audit-an-adapter"}  # it trains and measures for minutes


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page.stem in SLOW else ())
        for page in PAGES
        if code(page)
    ],
    ids=name,
)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    """A page's blocks in turn, with little training, as a script in an empty folder."""
    script = "\n".join(code(page))
    script = re.sub(r"epochs=\d+", "epochs=1", script)
    script = script.replace("pretrain_digits()", "pretrain_digits(epochs=1)")
    if page.stem == "fine-tune-peft":
        script = PEFT_DATA + script
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _tree() -> dict[str, set[str]]:
    """Folder -> folders in it, by the tree of the README."""
    text = (ROOT / "README.md").read_text().split("## The folders")[1]
    tree: dict[str, set[str]] = {}
    for indent, folder in re.findall(r"^ {4}( *)(\w+)/ ", text, re.MULTILINE):
        if not indent:
            tree[folder] = inner = set()
        else:
            inner.add(folder)
    return tree


def test_the_tree_is_the_tree() -> None:
    tree = _tree()
    for package, listed in tree.items():
        assert (ROOT / package).is_dir(), package
        if listed:
            assert listed == {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert {"lora_bounds", "lora_dropout"} <= {package for package, inner in tree.items() if inner}


def test_the_newest_change_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"]
