"""Every notebook runs from a clean kernel, top to bottom, in its short version."""

import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("0*.py"))
MOST_LINES, MOST_BYTES = 15, 400_000


def code(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_all_eight_are_there() -> None:
    assert [path.name[:2] for path in SOURCES] == [f"0{k}" for k in range(1, 9)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_runs_without_a_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_DROPOUT_FAST", "1")
    monkeypatch.setenv("LORA_DROPOUT_STATIC", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = jupytext.read(path)
    strict = nbformat.v4.new_code_cell("import warnings\nwarnings.simplefilter('error')")
    notebook.cells.insert(0, strict)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(ran) >= 5
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    for cell in ran:
        for output in cell.outputs:
            assert output.get("name") != "stderr", output.get("text")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_is_committed_is_this_source_executed(path: Path) -> None:
    file = path.with_suffix(".ipynb")
    assert file.stat().st_size < MOST_BYTES
    committed, source = nbformat.read(file, as_version=4), jupytext.read(path)
    assert code(committed) == code(source), "run make notebooks"
    assert not re.search(r'[ "/](tmp|home|root|work)/', file.read_text())
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs) or path.stem[:2] in (
        "07",
        "08",
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_cells_are_short_and_links_lead_somewhere(path: Path) -> None:
    notebook = jupytext.read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= MOST_LINES, cell.source
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source if cell.cell_type != "code" else ""):
            assert target.startswith("http") or (FOLDER / target).exists(), target


def test_sliders_redraw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("LORA_DROPOUT_STATIC", raising=False)
    from interactive import explore
    from ipywidgets import FloatSlider
    from matplotlib.figure import Figure

    drawn: list[float] = []

    def draw(p: float) -> Figure:
        drawn.append(p)
        return Figure()

    slider = FloatSlider(0.5, min=0, max=1)
    assert explore(draw, {"p": slider}) is not None
    slider.value = 0.7
    assert drawn == [0.5, 0.7]
    monkeypatch.setenv("LORA_DROPOUT_STATIC", "1")
    assert explore(draw, {"p": FloatSlider(0.1, min=0, max=1)}) is None
    assert drawn == [0.5, 0.7, 0.1]
