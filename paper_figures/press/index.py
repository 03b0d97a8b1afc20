"""The report: `index.html` beside the figures, made from the files that are there."""

import csv
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lora_dropout.door import short
from lora_dropout.safe_files import atomic_path
from paper_figures.press.figure import PaperFigure

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 2.5rem 0; }
figure img { max-width: 100%; background: white; padding: .5rem; box-sizing: border-box; }
figcaption { font-size: .9rem; }
table { border-collapse: collapse; font-size: .85rem; margin: .8rem 0; }
td, th { border-bottom: 1px solid #8884; padding: .2rem .6rem; text-align: left; }
.verdict { font-weight: 600; }
.missing { opacity: .7; }
"""
_HEAD = """LoRA Dropout (arXiv 2404.09610), regenerated: the paper's figures and tables, then those
it should have had. Every picture has its numbers (CSV) and its settings, versions and commit (JSON)
beside it."""


def write_index(
    figures: Mapping[str, PaperFigure], out: Path, *, missing: Mapping[str, str]
) -> Path:
    """Gather the figures of a folder.

    Args:
        figures: All figures, in the order of the report.
        out: Folder with their files.
        missing: Name of a figure that was skipped -> why.

    Returns:
        The file.
    """
    described, missing = {}, dict(missing)
    for name in figures:
        file = out / f"{name}.json"
        if file.exists() and name not in missing:
            try:
                described[name] = _description(file)
            except (OSError, ValueError, RecursionError) as error:
                missing[name] = f"{file} is damaged or old, draw it again: {short(str(error))}"
    sections = []
    for name, figure in figures.items():
        if name in described:
            sections.append(_section(name, described[name], out))
        elif name in missing:
            text = f"<p class=missing>Not drawn: {escape(missing[name])}</p>"
            sections.append(f"<h2 id={name}>{escape(figure.title)}</h2>\n{text}")
    summary = _table(
        [
            {"figure": f'<a href="#{name}">{escape(d["title"])}</a>', "verdict": d["verdict"]}
            for name, d in described.items()
        ]
    )
    page = (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        "<meta name=viewport content='width=device-width'>\n<title>LoRA Dropout, regenerated"
        f"</title>\n<style>{_STYLE}</style>\n<h1>LoRA Dropout, regenerated</h1>\n<p>{_HEAD}</p>\n"
        f"{summary}\n" + "\n".join(sections) + "\n</html>\n"
    )
    target = out / "index.html"
    with atomic_path(target) as path:
        path.write_text(page)
    return target


def _description(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    for field in ("title", "verdict", "caption"):
        if not (isinstance(content, dict) and isinstance(content.get(field), str)):
            raise ValueError(f"no {field} in it")
    return dict(content)


def _section(name: str, described: Mapping[str, Any], out: Path) -> str:
    links = [f'<a href="{name}.{end}">{end.upper()}</a>' for end in ("pdf", "csv", "json")]
    table, file = "", out / f"{name}_table.csv"
    if file.is_file():
        try:
            with open(file, newline="", encoding="utf-8") as lines:
                read = [{str(k): str(v) for k, v in row.items()} for row in csv.DictReader(lines)]
            table = _table([{escape(k): escape(_short(v)) for k, v in row.items()} for row in read])
        except (OSError, ValueError, csv.Error) as error:
            table = f"<p class=missing>{escape(f'{file} is damaged: {error}')}</p>"
        links.append(f'<a href="{file.name}">table</a>')
    return (
        f"<h2 id={name}>{escape(described['title'])}</h2>\n<figure>\n"
        f'<img src="{name}.png" alt="{escape(described["title"])}">\n<figcaption>'
        f"<span class=verdict>{escape(described['verdict'].capitalize())}.</span> "
        f"{escape(described['caption'])}<br>{' · '.join(links)}</figcaption>\n{table}\n</figure>"
    )


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(key)}</th>" for key in rows[0])
    body = "\n".join(
        "<tr>" + "".join(f"<td>{value}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value
