"""Where each example of a batch is in what a masked layer sees, found by a probe.

One pass of N instances must know which entries of a layer's input belong to which example. Models
differ: the batch leads, or comes second (Longformer), or is flattened into the tokens, examples
first or tokens first; or there is none (DeBERTa's relative embeddings). A probe runs the model
mask-free on three examples, on the same with another one in the middle or at the start, and on
two: what grows with the number of examples is the batch's axis, what changes belongs to the
changed example, and must be where that is.

What has no such place, or may lie elsewhere in the next batch (sorted, selected or routed by its
values), is run once an instance: in the smallest module around it whose inputs and outputs have
one. Where there is none, the pass is refused.
"""

import random
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from lora_dropout.adapters.layer import ONE_A_PASS, MaskedLayer
from lora_dropout.adapters.update import Place
from lora_dropout.masks.draw import LayerMask

# They order, pick or repeat rows by their values: the next batch may be dealt out differently.
_BY_VALUE = {
    "_pack_padded_sequence", "_unique", "_unique2", "argsort", "bincount", "bucketize", "kthvalue",
    "masked_select", "msort", "multinomial", "nonzero", "randperm", "searchsorted", "sort", "topk",
    "unique_consecutive", "unique_dim",
}  # fmt: skip
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size)


@dataclass
class Plan:
    """What the probe found for inputs of one kind, whatever the number of examples.

    Attributes:
        layers: Layer name -> (shape for no examples, place) of each of its calls.
        once: Modules to run once an instance: module -> places of its (inputs, outputs).
        problem: Why this model cannot run several instances in a pass.
        problems: Layer name -> why this layer cannot.
    """

    layers: dict[str, list[tuple[tuple[int, ...], Place]]] = field(default_factory=dict)
    once: dict[nn.Module, tuple[list[Place | None], list[Place | None]]] = field(
        default_factory=dict
    )
    problem: str | None = None
    problems: dict[str, str] = field(default_factory=dict)


class _Problem(NamedTuple):
    meets: bool
    reason: str


class _Call(NamedTuple):
    inputs: list[Any]
    outputs: list[Any]
    by_value: bool


_PLANS: weakref.WeakKeyDictionary[nn.Module, dict[Any, Plan]] = weakref.WeakKeyDictionary()


@contextmanager
def placing(
    model: nn.Module, layers: Mapping[str, MaskedLayer], rows: int | None
) -> Iterator[None]:
    """Tell each layer, in the passes to come of a model under N masks, where the examples are.

    Args:
        model: The model that is called; in each call, the tensors with `rows` entries in their
            leading dimension are the batch.
        layers: Its masked layers.
        rows: Number of examples, or None for the leading dimension of the first tensor.

    Yields:
        Nothing.
    """
    changed: dict[nn.Module, Any] = {}
    before = {name: layer.placed for name, layer in layers.items()}
    network = getattr(model, "_orig_mod", model)  # what torch.compile made of it cannot be probed

    def restore() -> None:
        for module, forward in changed.items():
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward
        changed.clear()

    busy = False

    def place(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal busy
        if busy or torch.compiler.is_compiling():
            return
        busy = True
        restore()
        try:
            size = _rows(args, kwargs, rows)
            plan = _plan(network, layers, args, kwargs, size)
        finally:
            busy = False
        if plan.problem:
            raise ValueError(f"{plan.problem}: {ONE_A_PASS}")
        for name, layer in layers.items():
            layer.rows, layer.placed = size, True
            layer.planned = tuple(dict.fromkeys(plan.layers.get(name, [])))
            layer.misplaced = plan.problems.get(name)
        for inner, (inputs, outputs) in plan.once.items():
            changed[inner] = inner.__dict__.get("forward")
            inner.__dict__["forward"] = _once_an_instance(inner, size, inputs, outputs)

    handle = model.register_forward_pre_hook(place, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        restore()
        for name, layer in layers.items():
            layer.placed = before[name]


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any], rows: int | None) -> int:
    tensors = [t for t in _leaves((args, kwargs)) if isinstance(t, Tensor) and t.dim() > 0]
    if rows is None:
        if not tensors:
            raise ValueError(f"model must get a tensor with the batch first: {ONE_A_PASS}")
        return len(tensors[0])
    if not any(len(tensor) == rows for tensor in tensors):
        shapes = [tuple(tensor.shape) for tensor in tensors[:5]]
        raise ValueError(
            f"model must get the batch of {rows} rows in the leading dimension of its inputs to "
            f"run several instances in one pass, got tensors of shapes {shapes}: {ONE_A_PASS}"
        )
    return rows


def _plan(
    model: nn.Module,
    layers: Mapping[str, MaskedLayer],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rows: int,
) -> Plan:
    known = _PLANS.setdefault(model, {})
    modes = hash(tuple(module.training for module in model.modules()))
    kinds = tuple(_kind(leaf, rows) for leaf in _leaves((args, kwargs)))
    key = (modes, tuple(layers), len(args), tuple(kwargs), kinds)
    missing = key not in known
    if _needed_anywhere(model, missing):
        # How examples meet and what goes around the layers does not hang on the length of a text.
        alike = [plan for (known_modes, *_), plan in known.items() if known_modes == modes]
        probe = _Probe(model, layers, args, kwargs, rows)
        known[key] = probe.plan(apart=bool(alike), around=any(plan.once for plan in alike))
    return known[key]


def _kind(leaf: Any, rows: int) -> Any:
    if isinstance(leaf, Tensor):
        shape = tuple(leaf.shape)
        return (leaf.dtype, leaf.device, ("rows", *shape[1:]) if shape[:1] == (rows,) else shape)
    return leaf if isinstance(leaf, _PLAIN) else type(leaf)


def _needed_anywhere(model: nn.Module, missing: bool) -> bool:
    # A pass of a sharded model takes all ranks: either all of them probe, or none.
    from torch.distributed.tensor import DTensor

    sharded = distributed.is_available() and distributed.is_initialized()
    sharded = sharded and any(isinstance(p, DTensor) for p in model.parameters())
    if not sharded:
        return missing
    device = next(model.parameters()).device
    flag = torch.tensor(float(missing), device=device)
    distributed.all_reduce(flag)
    return bool(flag > 0)


class _Probe:
    """Runs the model on two and three of its examples, and compares what its modules see."""

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, MaskedLayer],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        rows: int,
    ) -> None:
        self.model, self.layers, self.given, self.rows = model, layers, (args, kwargs), rows
        self.paths = {module: name for name, module in model.named_modules()}

    def plan(self, *, apart: bool, around: bool) -> Plan:
        with _restored(self.model, self.layers):
            return self._plan(apart, around)

    def _plan(self, apart: bool, around: bool) -> Plan:
        plan = Plan()
        norms = [n for n, m in self.model.named_modules() if isinstance(m, _BatchNorm)]
        norms = [n for n in norms if self.model.get_submodule(n).training]
        if norms:
            plan.problem = (
                f"examples of a batch must not meet, but {norms[0]!r} normalises over the batch"
            )
            return plan
        modes = [(module, module.training) for module in self.model.modules()]
        modules: dict[nn.Module, str] = {layer: name for name, layer in self.layers.items()}
        try:
            self.model.eval()
            found: dict[nn.Module, Any] = {}
            if not around:
                found = self._compare({**modules, self.model: ""})
                around = not all(_is_placed(found[layer]) for layer in modules)
            if around:
                found = self._compare({**modules, **self._around(self.layers.values())})
            for module, training in modes:
                module.training = training
            meets = _meeting(found[self.model])
            if not meets and not apart and self.model.training:
                meets = _meeting(self._compare({self.model: ""}, values_only=True)[self.model])
        finally:
            for module, training in modes:
                module.training = training
        if meets:
            plan.problem = f"examples of a batch must not meet in the model, {meets}"
            return plan
        bad: dict[str, str] = {}
        for layer, name in modules.items():
            calls = found[layer]
            if isinstance(calls, _Problem):
                bad[name] = calls.reason
                continue
            plan.layers[name] = []
            for call, (inputs, _) in calls:
                place = _input_place(call, inputs)
                if isinstance(place, _Problem):
                    bad[name] = place.reason
                    break
                plan.layers[name].append((tuple(call.inputs[0].shape), place))
        for name, reason in bad.items():
            plan.layers.pop(name, None)
            outer = self._container(self.layers[name], found)
            if outer is None:
                plan.problems[name] = reason
            else:
                plan.once[outer[0]] = outer[1]
        return plan

    def _around(self, modules: Any) -> dict[nn.Module, str]:
        names = {""}
        for module in modules:
            parts = self.paths[module].split(".")
            names |= {".".join(parts[:k]) for k in range(1, len(parts))}
        return {self.model.get_submodule(name): name for name in names}

    def _container(self, layer: nn.Module, found: dict[nn.Module, Any]) -> Any:
        parts = self.paths[layer].split(".")
        for k in range(len(parts) - 1, 0, -1):
            module = self.model.get_submodule(".".join(parts[:k]))
            calls = found.get(module)
            if not calls or isinstance(calls, _Problem):
                continue
            places = [places for _, places in calls]
            if all(place == places[0] for place in places) and all(
                _splits(call, *place) for call, place in calls
            ):
                return module, places[0]
        return None

    def _compare(self, modules: dict[nn.Module, str], values_only: bool = False) -> dict[Any, Any]:
        # By module: a list of (call, (places of its inputs, of its outputs)), or a problem.
        three = self._run(modules, self._examples(3))
        two = three if values_only else self._run(modules, self._examples(2))
        changes: list[tuple[int, dict[nn.Module, list[_Call]]]] = []
        if any(t.is_meta for t in self._batch()):
            changes.append((1, three))  # there are no values, so none can be wrong
        for position in (1, 0):  # no change of the order of three leaves both where they are
            for altered in self._altered(position):
                try:
                    changes.append((position, self._run(modules, altered)))
                except Exception:  # what is made up need not be valid
                    continue
                if values_only or _told(three, two, changes[-1][1]):
                    break
        if not changes:
            reason = "no other example could be made to tell the rows apart"
            return {module: _Problem(False, reason) for module in modules}
        return {
            module: _places(
                three[module], two[module], [(at, c[module]) for at, c in changes], values_only
            )
            for module in modules
        }

    def _examples(self, count: int) -> Any:
        index = torch.arange(count) % self.rows
        return self._map(lambda t: t[index.to(t.device)].clone())

    def _altered(self, position: int) -> Iterator[Any]:
        # Three examples with another one at a position: one of the batch, or a made-up one.
        if any(t.is_meta for t in self._batch()):
            return
        here = position % self.rows
        differ = torch.zeros(self.rows, dtype=torch.bool)
        for t in self._batch():
            differ |= (t != t[here]).reshape(self.rows, -1).any(1).cpu()
        if differ.any():
            index = torch.arange(3) % self.rows
            index[position] = differ.nonzero()[0]
            yield self._map(lambda t: t[index.to(t.device)].clone())
        for change in (_reversed, _shifted):
            yield self._map(partial(_with_another, rows=self.rows, at=position, change=change))

    def _batch(self) -> list[Tensor]:
        return [
            t
            for t in _leaves(self.given)
            if isinstance(t, Tensor) and t.dim() > 0 and len(t) == self.rows
        ]

    def _map(self, function: Callable[[Tensor], Tensor]) -> Any:
        def one(leaf: Any) -> Any:
            of_batch = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == self.rows
            return function(leaf) if of_batch else leaf

        return _mapped(one, self.given)

    def _run(self, modules: dict[nn.Module, str], given: Any) -> dict[nn.Module, list[_Call]]:
        calls: dict[nn.Module, list[_Call]] = {module: [] for module in modules}
        watch = _Watch()
        entered: dict[nn.Module, list[Any]] = defaultdict(list)

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            leaves = [_copy(leaf) for leaf in _leaves((args, kwargs))]
            entered[module].append((leaves, any(watch.frames)))
            watch.frames.append(False)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            leaves = [_copy(leaf) for leaf in _leaves(output)]
            inputs, by_value = entered[module].pop()
            calls[module].append(_Call(inputs, leaves, by_value))
            whole = all(t.is_floating_point() for t in leaves if isinstance(t, Tensor))
            if watch.frames.pop() and watch.frames and not whole:
                watch.frames[-1] = True

        handles = []
        for module in modules:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
        args, kwargs = given
        try:
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            with watch, torch.no_grad():
                if self.model in modules:  # its hooks, the caller's own included, have run
                    enter(self.model, args, kwargs)
                    leave(self.model, args, self.model.forward(*args, **kwargs))
        finally:
            for handle in handles:
                handle.remove()
        return calls


class _Watch(TorchDispatchMode):
    """Marks the module at work when it orders or picks rows by their values."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_value = name in _BY_VALUE or (
            name in ("index", "repeat_interleave")
            and any(isinstance(t, Tensor) and _picks(name, t) for t in _leaves(args[1:]))
        )
        if self.frames and by_value:
            self.frames[-1] = True
        return func(*args, **(kwargs or {}))


def _picks(name: str, index: Tensor) -> bool:
    return name == "repeat_interleave" or index.dtype in (torch.bool, torch.uint8)


@contextmanager
def _restored(model: nn.Module, layers: Mapping[str, MaskedLayer]) -> Iterator[None]:
    """Leaves random states, buffers, masks and modes as they were."""
    active = {name: layer.active for name, layer in layers.items()}
    buffers = [(b, b.clone()) for b in model.buffers()]
    states = random.getstate(), np.random.get_state()
    devices = {t.device for t in model.parameters() if t.device.type == "cuda"}
    outside = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    try:
        with outside, torch.random.fork_rng(sorted(d.index for d in devices)):
            for layer in layers.values():
                layer.active = "mean"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
        for name, layer in layers.items():
            layer.active = active[name]


def _told(*runs: dict[nn.Module, list[_Call]]) -> bool:
    # Whether each call on a batch (of three, of two) shows that an example was altered.
    return all(
        any(_changed(a, b).any() for a, b in _tensors(x.inputs, z.inputs))
        for module in runs[0]
        for x, y, z in zip(*(run[module] for run in runs), strict=False)
        if any(a.shape != b.shape for a, b in _tensors(x.inputs, y.inputs))
    )


def _tensors(a: list[Any], b: list[Any]) -> list[tuple[Tensor, Tensor]]:
    pairs = zip(a, b, strict=False)
    return [(x, y) for x, y in pairs if isinstance(x, Tensor) and isinstance(y, Tensor)]


def _changed(a: Tensor, b: Tensor) -> Tensor:
    if a.shape != b.shape:
        return torch.ones(1, dtype=torch.bool)
    differ = (a != b) & ~((a != a) & (b != b))
    if a.is_floating_point() and differ.any():
        # A routed product rounds otherwise where other rows go elsewhere.
        slack = (100 if a.dtype in (torch.float32, torch.float64) else 4) * torch.finfo(a.dtype).eps
        largest = torch.where(a.isfinite(), a, 0).abs().max()
        differ &= ~((a - b).abs() <= slack * largest)
    return differ


def _places(
    three: list[_Call], two: list[_Call], changes: list[tuple[int, list[_Call]]], values_only: bool
) -> Any:
    others = [two, *(calls for _, calls in changes)]
    if any(len(calls) != len(three) for calls in others):
        return _Problem(False, "its calls differ between batches")
    found = []
    for index, call in enumerate(three):
        sides = []
        for side in ("inputs", "outputs"):
            leaves = getattr(call, side)
            fewer = getattr(two[index], side)
            altered = [(at, getattr(calls[index], side)) for at, calls in changes]
            if any(len(other) != len(leaves) for other in [fewer, *(o for _, o in altered)]):
                return _Problem(False, "its calls differ between batches")
            sides.append(
                [
                    _place(leaf, fewer[k], [(at, other[k]) for at, other in altered], values_only)
                    for k, leaf in enumerate(leaves)
                    if isinstance(leaf, Tensor)
                ]
            )
        found.append((call, (sides[0], sides[1])))
    return found


def _place(three: Tensor, two: Any, altered: list[tuple[int, Any]], values_only: bool) -> Any:
    shapes_differ = [o for _, o in altered if getattr(o, "shape", None) != three.shape]
    if shapes_differ or not isinstance(two, Tensor) or two.dim() != three.dim():
        return _Problem(False, "its shape differs between batches")
    device = "cpu" if three.is_meta else three.device
    changed = torch.zeros((2, *three.shape), dtype=torch.bool, device=device)  # by position
    for position, other in [] if three.is_meta else altered:
        changed[position] |= _changed(three, other)
    if values_only:
        if three.dim() and len(three) == 3:
            return _one_axis(changed, 0, 1)
        return None
    grows = [k for k in range(three.dim()) if three.shape[k] != two.shape[k]]
    if not grows:
        if changed.any():
            return _Problem(three.numel() > 1, "examples meet before it")
        return None
    axis = grows[0]
    times = three.shape[axis] // 3
    if len(grows) > 1 or (three.shape[axis], two.shape[axis]) != (3 * times, 2 * times):
        return _Problem(len(grows) > 1, "it sees examples together")
    return _one_axis(changed, axis, times)


def _one_axis(changed: Tensor, axis: int, times: int) -> Any:
    rest = [k for k in range(1, changed.dim()) if k != axis + 1]
    position, index = (changed.any(dim=rest) if rest else changed).nonzero().cpu().unbind(1)
    fit = [
        Place(axis, times // inner, inner)
        for inner in range(1, times + 1)
        if times % inner == 0 and bool(((index // inner) % 3 == position).all())
    ]
    if not fit:
        return _Problem(True, "examples meet before it")
    if len(fit) > 1:
        return _Problem(False, f"the order of {times} entries an example could not be told")
    return fit[0]


def _input_place(call: _Call, inputs: list[Any]) -> Any:
    if call.by_value:
        return _Problem(False, "rows are ordered or chosen by their values before it")
    place = inputs[0] if inputs else _Problem(False, "it gets no tensor")
    return _Problem(False, "it sees no batch") if place is None else place


def _is_placed(calls: Any) -> bool:
    return not isinstance(calls, _Problem) and all(
        isinstance(_input_place(call, inputs), Place) for call, (inputs, _) in calls
    )


def _meeting(calls: Any) -> str | None:
    if isinstance(calls, _Problem):
        return None
    for call, (_, outputs) in calls:
        tensors = [leaf for leaf in call.outputs if isinstance(leaf, Tensor)]
        for tensor, place in zip(tensors, outputs, strict=True):
            if isinstance(place, _Problem) and place.meets and tensor.numel() > 1:
                return f"an output of shape {tuple(tensor.shape)} for 3 rows depends on several"
    return None


def _splits(call: _Call, inputs: list[Any], outputs: list[Any]) -> bool:
    # Whether a module can be run on the rows of one instance alone.
    leaves = [leaf for leaf in (*call.inputs, *call.outputs) if not isinstance(leaf, Tensor)]
    placed = [place for place in inputs if isinstance(place, Place)]
    return (
        not call.by_value
        and all(isinstance(leaf, _PLAIN) for leaf in leaves)
        and bool(placed)
        and all(place is None or isinstance(place, Place) for place in inputs)
        and bool(outputs)
        and all(isinstance(place, Place) for place in outputs)
        and all(place.outer == 1 for place in (*placed, *outputs))
    )


def _once_an_instance(
    module: nn.Module, rows: int, inputs: list[Place | None], outputs: list[Place | None]
) -> Callable[..., Any]:
    forward = module.forward
    inside = [m for m in module.modules() if isinstance(m, MaskedLayer)]

    def each(*args: Any, **kwargs: Any) -> Any:
        masks = {m: m.active for m in inside if isinstance(m.active, LayerMask)}
        n = max((mask.n_instances for mask in masks.values()), default=1)
        if n == 1:
            return forward(*args, **kwargs)
        block = -(-rows // n)
        results = []
        try:
            for r in range(-(-rows // block)):
                for layer, mask in masks.items():
                    layer.active = mask.select(r)
                here = slice(r * block, min((r + 1) * block, rows))
                part = _cut_all((args, kwargs), inputs, here)
                results.append(forward(*part[0], **part[1]))
        finally:
            for layer, mask in masks.items():
                layer.active = mask
        parts = [[t for t in _leaves(result) if isinstance(t, Tensor)] for result in results]
        joined = iter(
            torch.cat(pieces, dim=place.axis)  # type: ignore[union-attr]
            for pieces, place in zip(zip(*parts, strict=True), outputs, strict=True)
        )
        return _mapped(lambda t: next(joined) if isinstance(t, Tensor) else t, results[0])

    return each


def _cut_all(tree: Any, places: list[Place | None], rows: slice) -> Any:
    left = iter(places)

    def cut(leaf: Any) -> Any:
        place = next(left) if isinstance(leaf, Tensor) else None
        if place is None:
            return leaf
        size = (rows.stop - rows.start) * place.inner
        return leaf.narrow(place.axis, rows.start * place.inner, size)

    return _mapped(cut, tree)


def _copy(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    if isinstance(tree, (tuple, list)) and not isinstance(tree, torch.Size):
        return [leaf for value in tree for leaf in _leaves(value)]
    return [tree]


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, Mapping):
        items = {key: _mapped(function, value) for key, value in tree.items()}
        return items if type(tree) is dict else type(tree)(**items)
    if isinstance(tree, (tuple, list)) and not isinstance(tree, torch.Size):
        parts = [_mapped(function, value) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return function(tree)


def _with_another(
    tensor: Tensor, *, rows: int, at: int, change: Callable[[Tensor], Tensor]
) -> Tensor:
    picked = tensor[(torch.arange(3) % rows).to(tensor.device)].clone()
    picked[at] = change(picked[at])
    return picked


def _reversed(row: Tensor) -> Tensor:
    # Most likely a valid row: numbers moved, tokens in another order.
    if row.is_floating_point() or row.is_complex():
        return row * 1.3 + 0.2
    return row.flip(row.dim() - 1) if row.dim() else row


def _shifted(row: Tensor) -> Tensor:
    if row.is_floating_point() or row.is_complex() or row.dtype == torch.bool:
        return _reversed(row)
    return torch.where(row > 0, row - 1, row + 1) if bool((row > 1).any()) else row
