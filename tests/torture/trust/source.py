"""What the source says: calls that could execute a file's content, and `trust_remote_code`."""

import ast
from pathlib import Path

from tests.torture import ROOT

PACKAGES = ("lora_dropout", "lora_bounds", "paper_figures", "benchmarks")
_NAME = "trust_remote_code"


def _sources() -> list[Path]:
    return [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def defaults() -> dict[str, bool]:
    """Each place that gives `trust_remote_code` a value of its own, and whether that is False."""
    found = {}
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text())):
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


_DANGEROUS = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load", "dill.loads",
    "marshal.load", "marshal.loads", "shelve.open", "joblib.load", "pandas.read_pickle",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "numpy.load", "np.load",
    "torch.load", "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter",
    "__import__", "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp",
}  # fmt: skip


def dangerous_calls(source: str) -> list[str]:
    """Calls that could execute what a file holds, or a shell.

    Args:
        source: Of a module.

    Returns:
        `line: what` of each, without `torch.load(..., weights_only=True)` and `np.load` that
        refuses pickles, its default.
    """
    tree, found = ast.parse(source), []
    names = _imported(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        head, dot, rest = name.partition(".")
        name = names.get(head, head) + dot + rest
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if keywords.get("shell", "False") != "False":
            found.append(f"{node.lineno}: shell=True")
        if keywords.get("allow_pickle", "False") != "False":
            found.append(f"{node.lineno}: allow_pickle")
        safe = (name == "torch.load" and keywords.get("weights_only") == "True") or (
            name in ("numpy.load", "np.load") and "allow_pickle" not in keywords
        )
        if name in _DANGEROUS and not safe:
            found.append(f"{node.lineno}: {name}")
    return found


def _imported(tree: ast.AST) -> dict[str, str]:
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def scanned() -> dict[str, list[str]]:
    """Dangerous calls of each source file."""
    return {str(p.relative_to(ROOT)): dangerous_calls(p.read_text()) for p in _sources()}
