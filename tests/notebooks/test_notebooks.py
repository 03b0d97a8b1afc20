"""Every notebook runs from a clean kernel, top to bottom, in its short version."""

import ast
import io
import os
import re
import sys
import threading
import time
from pathlib import Path

import jupytext
import nbformat
import pytest
from matplotlib.figure import Figure
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
        for target in re.findall(
            r"\]\(([^)#]+)\)", cell.source if cell.cell_type != "code" else ""
        ):
            assert target.startswith("http") or (FOLDER / target).exists(), target


def test_sliders_redraw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("LORA_DROPOUT_STATIC", raising=False)
    from interactive import explore
    from ipywidgets import FloatSlider

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


def test_sliders_draw_on_any_thread_and_end_on_the_latest_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ipykernel 7 calls back on a second thread, while cells draw with pyplot on the first."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("LORA_DROPOUT_STATIC", raising=False)
    from interactive import explore, new_figure
    from ipywidgets import FloatSlider
    from matplotlib import pyplot as plt

    drawn, inside, overlapped, shown = [], [0], [False], []

    def draw(p: float) -> Figure:
        inside[0] += 1
        overlapped[0] |= inside[0] > 1
        figure, axis = new_figure(size=(1, 1))
        axis.plot([0, 1], [p, 0])
        time.sleep(0.005)
        drawn.append(p)
        inside[0] -= 1
        return figure

    slider = FloatSlider(0.5, min=0, max=1, step=0.001)
    box = explore(draw, {"p": slider})
    frame = box.children[1]
    frame.observe(lambda change: shown.append(change["new"]), names="value")
    before = plt.get_fignums()
    threads = [
        threading.Thread(target=lambda part=part: [setattr(slider, "value", v) for v in part])
        for part in ([k / 12 for k in range(part, 12, 3)] for part in range(3))
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        plt.close(plt.figure(figsize=(1, 1)))
        time.sleep(0.002)
    assert plt.get_fignums() == before
    assert not overlapped[0]
    assert drawn[-1] == slider.value
    assert len(shown) >= 2
    for picture in shown:
        pixels = plt.imread(io.BytesIO(picture))
        assert pixels.min() < 0.9 < pixels.max(), "a blank frame"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_sliders_draw_knows_nothing_of_pyplot(path: Path) -> None:
    tree = ast.parse(path.read_text())
    pictures = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(
            isinstance(call, ast.Call)
            and getattr(call.func, "id", "") == "explore"
            and getattr(call.args[0], "id", "") == node.name
            for call in ast.walk(tree)
        )
    ]
    assert bool(pictures) == ("explore(" in path.read_text())
    for picture in pictures:
        assert not [n for n in ast.walk(picture) if isinstance(n, ast.Name) and n.id == "plt"]
