"""What a result depends on, as digests: data, functions by their code, modules by their structure.

Two things have one digest if they are made alike, in this process or another. Code of installed
libraries counts by name and version, all other by its bytecode, with defaults, closures and the
globals that it names; what cannot be told from its like is refused.
"""

import dis
import functools
import hashlib
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis))
_OWN = ("lora_dropout", "lora_bounds")
_PATHS = sysconfig.get_paths()
_LIBRARIES = tuple(
    f"{Path(_PATHS[kind]).resolve().as_posix()}/" for kind in ("stdlib", "purelib", "platlib")
)
# Made anew, or shared, as the interpreter likes.
_FLEETING = (
    *(tuple, frozenset, types.CodeType, types.MethodType, types.CellType),
    *(types.BuiltinFunctionType, types.MethodWrapperType),
)
# Of a class, what the interpreter keeps there; of a module, what its hooks' numbers are.
_NO_CODE = frozenset(
    {"__module__", "__doc__", "__dict__", "__weakref__", "__qualname__", "__annotations__"}
    | {"__abstractmethods__", "_abc_impl", "__firstlineno__", "__static_attributes__"}
    | {"__annotate__", "__annotate_func__", "__annotations_cache__", "__annotate_cache__"}
)
_TENSORS = frozenset({"_parameters", "_buffers", "_modules", "training"})


def digest_of(name: str, value: Any) -> str:
    """A digest of anything that a result depends on.

    Args:
        name: Name of the argument, for the message.
        value: Data, a function, a class, an object, a module with its weights.

    Returns:
        Hexadecimal digest: equal for what is made alike, also in another process.

    Raises:
        ValueError: If part of it has neither code nor content that could be told apart.
    """
    return _digest(_Description(name, weights=True).of(value))


def structure_digest(model: nn.Module) -> str:
    """A digest of what a model computes, given its parameters and buffers.

    Args:
        model: Any module.

    Returns:
        Hexadecimal digest of classes, code, submodules and their attributes (rates, activation
        functions); neither of weights nor of whether training mode is on.

    Raises:
        ValueError: If part of it has neither code nor content that could be told apart.
    """
    return _digest(_Description("model", weights=False).of(model))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of named tensors: equal if and only if all their bits are.

    Args:
        tensors: Name -> tensor, in any order.

    Returns:
        Hexadecimal digest of names, types, shapes and bytes.
    """
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(tensors.items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(_content(tensor))
    return digest.hexdigest()


@functools.cache  # what this process runs, whatever happens to the files meanwhile
def package_digest() -> str:
    """A digest of the source of `lora_dropout`, and of `lora_bounds`, whose laws it uses.

    Returns:
        Hexadecimal digest.
    """
    return files_digest(sorted(file for name in _OWN for file in _folder(name).rglob("*.py")))


def files_digest(files: Iterable[Path]) -> str:
    """A digest of files.

    Args:
        files: The files, in this order.

    Returns:
        Hexadecimal digest of names and contents.
    """
    digest = hashlib.blake2b(digest_size=12)
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _folder(package: str) -> Path:
    spec = find_spec(package)
    return Path(str(spec and spec.origin)).resolve().parent


def _digest(description: Any) -> str:
    return hashlib.blake2b(repr(description).encode(), digest_size=16).hexdigest()


def _content(tensor: Tensor) -> memoryview:
    if tensor.layout != torch.strided or tensor.is_quantized:
        tensor = tensor.to_dense() if not tensor.is_quantized else tensor.int_repr()
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data


class _Description:
    """Describes values by nested tuples of plain ones, the same in every process."""

    def __init__(self, name: str, *, weights: bool) -> None:
        self.name, self.weights = name, weights
        # A value seen again is described by its number: cycles end, and sharing counts.
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # alive, so that no number is given twice

    def of(self, value: Any) -> Any:
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            return (type(value).__name__, repr(value))
        if not isinstance(value, _FLEETING):
            if id(value) in self.seen:
                return ("again", self.seen[id(value)])
            self._number(value)
        return self._of_new(value)

    def _number(self, value: Any) -> int:
        self.kept.append(value)
        return self.seen.setdefault(id(value), len(self.seen))

    def _of_new(self, value: Any) -> Any:
        kinds: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
            (Tensor, self._tensor),
            (type, self._class),
            (types.ModuleType, lambda v: ("module", v.__name__, _version(v.__name__))),
            (types.FunctionType, self._function),
            (types.CodeType, self._code),
            (types.CellType, self._cell),
            (functools.partial, lambda v: ("partial", *map(self.of, (v.func, v.args, v.keywords)))),
            (types.MethodType, lambda v: ("method", self.of(v.__func__), self.of(v.__self__))),
            ((staticmethod, classmethod), lambda v: (type(v).__name__, self.of(v.__func__))),
            (property, lambda v: ("property", *map(self.of, (v.fget, v.fset)))),
            ((types.BuiltinFunctionType, types.MethodWrapperType), self._builtin),
            (nn.Module, self._module),
            (weakref.ReferenceType, lambda v: ("weak", self.of(v()))),
        )
        for kind, describe in kinds:
            if isinstance(value, kind):
                return describe(value)
        if type(value) in (list, tuple):
            return (type(value).__name__, *map(self.of, value))
        if type(value) in (set, frozenset):
            return (type(value).__name__, *sorted((self.of(v) for v in value), key=repr))
        if type(value) in (dict, types.MappingProxyType):
            return ("dict", *((self.of(k), self.of(v)) for k, v in value.items()))
        return self._object(value)

    def _tensor(self, value: Tensor) -> Any:
        content = hashlib.blake2b(_content(value), digest_size=16).hexdigest()
        return ("tensor", str(value.dtype), tuple(value.shape), value.requires_grad, content)

    def _module(self, value: nn.Module) -> Any:
        # Hooks stand under numbers that count all hooks of the process: their order is enough.
        own = {
            key: list(entry.values()) if "_hooks" in key and isinstance(entry, dict) else entry
            for key, entry in vars(value).items()
            if key not in _TENSORS
        }
        tensors = {**value._parameters, **value._buffers}
        if self.weights:
            own |= {"training": value.training, **tensors}
        tied = [
            (k, None if t is None else (self._number(t), str(t.dtype))) for k, t in tensors.items()
        ]
        children = [(key, self.of(child)) for key, child in value._modules.items()]
        return ("nn", self.of(type(value)), self._pairs(own), tied, children)

    def _object(self, value: Any) -> Any:
        kind = type(value)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            raise ValueError(
                f"checkpoint_folder needs {self.name} to be told from its like, got in it a "
                f"{kind.__module__}.{kind.__qualname__}, which has no content to go by: take it "
                "out, give its class a __reduce__ that names it, or leave checkpoint_folder out"
            ) from error
        if isinstance(reduced, str):
            inner = self.of(getattr(value, "__wrapped__", None))  # of a cached function, say
            return ("global", kind.__qualname__, reduced, inner)
        function, arguments, *rest = reduced
        rest = [list(part) if hasattr(part, "__next__") else part for part in rest]
        return ("reduced", self.of(kind), self.of(function), self.of(arguments), self.of(rest))

    def _pairs(self, state: Mapping[str, Any]) -> Any:
        return tuple((key, self.of(state[key])) for key in sorted(state, key=str))

    def _class(self, value: type) -> Any:
        parts: list[Any] = ["class"]
        for base in value.__mro__[:-1]:
            library = _is_library(base.__module__)
            parts.append((base.__qualname__, _version(base.__module__) if library else None))
            for key in sorted(vars(base)):
                entry = vars(base)[key]
                if key in _NO_CODE or isinstance(
                    entry, (types.GetSetDescriptorType, types.MemberDescriptorType)
                ):
                    continue
                # In a library's class, only what somebody has put there since.
                if not library or _is_foreign(entry):
                    parts.append((key, self.of(entry)))
        return tuple(parts)

    def _builtin(self, value: Any) -> Any:
        owner = getattr(value, "__self__", None)
        owned = None if owner is None or isinstance(owner, types.ModuleType) else self.of(owner)
        name = str(getattr(value, "__module__", ""))
        return ("builtin", name, value.__qualname__, _version(name), owned)

    def _function(self, value: types.FunctionType) -> Any:
        held = [value.__defaults__, value.__kwdefaults__, value.__closure__, vars(value)]
        if _is_library_code(value):
            name = value.__module__ or ""
            known = ("library", name, value.__qualname__, _version(name))
            if value.__closure__ is None and "<lambda>" not in value.__qualname__:
                return known
            return (*known, self.of(value.__code__), self.of(held))
        names: dict[str, None] = {}
        _names(value.__code__, names)
        found = {}
        for name in names:
            if name not in value.__globals__:
                continue
            entry = value.__globals__[name]
            found[name] = (self.of(entry), self._read(entry, names))
        for name in _imports(value.__code__, str(value.__globals__.get("__package__") or "")):
            with suppress(ImportError):  # where the code itself says what then
                entry = import_module(name)
                found[f"import {name}"] = (self.of(entry), self._read(entry, names))
        return ("function", self.of(value.__code__), self.of(held), sorted(found.items()))

    def _read(self, value: Any, names: Collection[str], outer: tuple[Any, ...] = ()) -> Any:
        # What code with these names can read of a module, and of the modules in it.
        if not isinstance(value, types.ModuleType) or value in outer:
            return ()
        library, entries = _is_library(value.__name__), vars(value)
        return [
            (key, self.of(entries[key]), self._read(entries[key], names, (*outer, value)))
            for key in sorted(names)
            if key in entries and not (library and not _is_foreign(entries[key]))
        ]

    def _code(self, value: types.CodeType) -> Any:
        places = (value.co_varnames, value.co_freevars, value.co_cellvars, value.co_names)
        counts = (value.co_argcount, value.co_kwonlyargcount, value.co_posonlyargcount)
        return ("code", value.co_code, counts, places, self.of(value.co_consts), value.co_flags)

    def _cell(self, value: types.CellType) -> Any:
        try:
            content = value.cell_contents
        except ValueError:  # empty
            return ("cell",)
        return ("cell", self.of(content))


def _names(code: types.CodeType, found: dict[str, None]) -> None:
    found.update(dict.fromkeys(code.co_names))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _names(constant, found)


def _imports(code: types.CodeType, package: str) -> Iterator[str]:
    # The modules that code imports when it runs.
    level = 0
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_CONST" and isinstance(step.argval, int):
            level = step.argval
        if step.opname == "IMPORT_NAME":
            yield resolve_name("." * level + str(step.argval), package) if level else step.argval
        if isinstance(step.argval, types.CodeType):
            yield from _imports(step.argval, package)


def _is_foreign(value: Any) -> bool:
    # What somebody has put into a library since.
    return isinstance(value, types.FunctionType) and not _is_library_code(value)


def _is_library_code(function: types.FunctionType) -> bool:
    file = function.__code__.co_filename
    if file.startswith("<attrs generated"):  # from the class, whose module says whose it is
        return _is_library(function.__module__)
    return file.startswith("<frozen") or _is_library_file(file)


@functools.cache
def _is_library(module: str) -> bool:
    if module in sys.builtin_module_names or module == "builtins":
        return True
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if file is None:
        return module != "__main__" and module.partition(".")[0] in sys.stdlib_module_names
    return _is_library_file(file)


@functools.cache
def _is_library_file(file: str) -> bool:
    path = Path(file).resolve().as_posix()
    own = [f"{_folder(name).as_posix()}/" for name in _OWN]
    return path.startswith((*_LIBRARIES, *own))


@functools.cache
def _version(module: str) -> str:
    top = module.partition(".")[0]
    if top in _OWN:
        return package_digest()
    return str(getattr(sys.modules.get(top), "__version__", ""))
