"""What the source says of `trust_remote_code`; calls that execute files are ruff's (S, TID251)."""

import ast
from pathlib import Path

from tests.hardening import ROOT

PACKAGES = ("lora_dropout", "lora_bounds", "paper_figures", "benchmarks")
_NAME = "trust_remote_code"


def _sources() -> list[Path]:
    return [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def defaults() -> dict[str, bool]:
    """Each place that gives `trust_remote_code` a value of its own, and whether that is False."""
    found = {}
    for path in _sources():
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if _NAME in text else ():
            for value in _values(node):
                where = f"{path.relative_to(ROOT)}:{value.lineno}"
                if isinstance(value, ast.Call):  # option(False, help=...)
                    value = value.args[0]
                found[where] = not (isinstance(value, ast.Constant) and value.value is not False)
    return found


def _values(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.keyword) and node.arg == _NAME:
        return [node.value]
    if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == _NAME:
        return [node.value] if node.value else []
    if isinstance(node, ast.Dict):
        return [v for k, v in zip(node.keys, node.values, strict=True)
                if isinstance(k, ast.Constant) and k.value == _NAME]  # fmt: skip
    if isinstance(node, ast.arguments):
        pairs = [*zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        pairs += [*zip(reversed(node.args), reversed(node.defaults), strict=False)]
        return [value for name, value in pairs if name.arg == _NAME and value is not None]
    return []


def test_remote_code_is_trusted_nowhere_by_default() -> None:
    found = defaults()
    assert found and all(found.values()), found
