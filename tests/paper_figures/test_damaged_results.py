"""Damaged or old files among a figure's results cost that figure, by name, and no other."""

import json
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from lora_dropout.runs.store import Store
from paper_figures import __main__ as command
from paper_figures.press.figure import Context, Drawing, PaperFigure
from paper_figures.press.index import write_index

WHOLE = {"title": "A title", "verdict": "illustration", "caption": "A caption."}


def drawing(context: Context) -> Drawing:
    figure, _ = plt.subplots()
    return Drawing(figure, [{"x": 1}], "caption", "illustration")


def reading(context: Context) -> Drawing:
    context.store.get({"x": 1})
    return drawing(context)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", '{"a":' * 100_000, json.dumps({"title": "old"}), "\udcff"]
    + [json.dumps({**WHOLE, field: 3}) for field in WHOLE],
)
def test_a_damaged_description_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text(json.dumps(WHOLE))
    (tmp_path / "odd.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    known = {name: PaperFigure(name, name, drawing) for name in ("odd", "whole")}
    page = write_index(known, tmp_path, missing={}).read_text()
    assert "odd.json is damaged or old, draw it again" in page
    assert "A caption." in page


@pytest.mark.parametrize("table", [b"a,b\n1,2,3\n", b"\xff\xfe", b"a\n1\x00\n", b"", b"a,b\n1\n"])
def test_a_damaged_table_is_no_traceback(table: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text(json.dumps(WHOLE))
    (tmp_path / "whole_table.csv").write_bytes(table)
    known = {"whole": PaperFigure("whole", "whole", drawing)}
    assert "A caption." in write_index(known, tmp_path, missing={}).read_text()


def test_a_damaged_cell_costs_one_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"odd": PaperFigure("odd", "odd", reading), "whole": PaperFigure("whole", "w", drawing)}
    monkeypatch.setattr(command, "figures", lambda: known)
    context = Context(tmp_path)
    store: Store = context.store
    store.put({"x": 1}, 5)
    store.path({"x": 1}).write_text('{"value": 4}')
    assert command.main(["run", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "odd: not drawn:" in said.err and "is damaged, remove it" in said.err
    assert (tmp_path / "whole.png").is_file() and "report: " in said.out
