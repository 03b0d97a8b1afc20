"""Where the batch is in a layer's input: any axis, flattened either way, absent, or nowhere."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lora_dropout import (
    LAWS,
    LoRADropoutConfig,
    adapt,
    ensemble_predict,
    instance_loss,
    sample_masks,
    trainable_parameters,
    use_masks,
)
from tests.lora_dropout.strategies import ALGEBRA, close, fill, normal, seeded, seeds

WIDTH = 6


class Net(nn.Module):
    """(b, T, WIDTH) -> (b, 3), with a layer in the middle fed as `layout` says."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.first, self.middle = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)
        self.table = nn.Parameter(torch.linspace(-1, 1, 2 * WIDTH).view(2, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, t, w = x.shape
        if self.layout == "leading":
            x = self.middle(x)
        elif self.layout == "second":
            x = self.middle(x.transpose(0, 1)).transpose(0, 1)
        elif self.layout == "examples first":
            x = self.middle(x.flatten(0, 1)).view(b, t, w)
        elif self.layout == "tokens first":
            x = self.middle(x.transpose(0, 1).flatten(0, 1)).view(t, b, w).transpose(0, 1)
        elif self.layout == "between":  # windows, batch, places in a window, flattened
            y = x.view(b, 2, t // 2, w).transpose(0, 1).flatten(0, 2)
            x = self.middle(y).view(2, b, t // 2, w).transpose(0, 1).flatten(1, 2)
        elif self.layout == "padded":
            x = self.middle(F.pad(x, (0, 0, 0, 3)))[:, :t]
        elif self.layout == "twice":
            x = self.middle(self.middle(x.transpose(0, 1)).transpose(0, 1).tanh())
        return self.head(x.tanh().mean(1))


class Relative(nn.Module):
    """A block whose layer sees tokens, and a table that has no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, *, table: Tensor) -> tuple[Tensor, None]:
        keys = self.proj(table[None]).repeat(len(x), 1, 1)  # (b, 2, WIDTH)
        scores = self.proj(x) @ keys.transpose(1, 2)
        return x + scores.softmax(-1) @ keys, None


class WithTable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Relative(), nn.Linear(WIDTH, 3)
        self.table = nn.Parameter(torch.linspace(-1, 1, 2 * WIDTH).view(2, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x, table=self.table)[0].mean(1))


class Sorting(nn.Module):
    """Its layer gets the rows in the order of their values; `around` is a module of its own."""

    def __init__(self, around: bool) -> None:
        super().__init__()
        self.inner = Sorted() if around else None
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.inner is None:
            order = x.mean((1, 2)).argsort()
            x = self.layer(x[order])[order.argsort()]
        else:
            x = self.layer(self.inner(x))
        return self.head(x.tanh().mean(1))


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        order = x.mean((1, 2)).argsort()
        return self.layer(x[order])[order.argsort()]


class Mirror(nn.Module):
    """Its layer gets the rows in another order, of one kind for each number of rows."""

    def __init__(self, kind: str, inner: bool = True) -> None:
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(WIDTH, WIDTH)
        self.inner = Mirror(kind, inner=False) if inner else None
        self.head = nn.Linear(WIDTH, 3) if inner else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.inner is not None:
            return self.head(self.layer(self.inner(x)).tanh().mean(1))
        if self.kind == "flip":
            return self.layer(x.flip(0)).flip(0)
        return self.layer(x.roll(1, 0)).roll(-1, 0)


class Shared(nn.Module):
    """Examples meet: by their mean, or in train mode alone."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer, self.head, self.kind = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3), kind
        self.norm = nn.BatchNorm1d(WIDTH) if kind == "norm" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.layer(x.mean(1)))
        if self.kind == "mean" or (self.kind == "mean in training" and self.training):
            y = y - y.mean(0)
        return self.head(y.tanh())


LAYOUTS = ("leading", "second", "examples first", "tokens first", "between", "padded", "twice")


def adapted(model: nn.Module, law: str = "row_column", seed: int = 0) -> nn.Module:
    settings = LoRADropoutConfig(rank=2, dropout=0.4, mask=law)  # type: ignore[arg-type]
    return fill(adapt(seeded(model, seed), settings).double(), seed + 1).eval()


def value_and_gradient(model: nn.Module, loss: Tensor) -> Tensor:
    parameters = list(trainable_parameters(model).values())
    grads = torch.autograd.grad(loss, parameters)
    return torch.cat([loss.detach().view(1), *(g.flatten() for g in grads)])


def check(model: nn.Module, x: Tensor, n: int, *, grouped: bool = True) -> None:
    """Batched, grouped and the one-pass ensemble against one pass an instance."""
    y = torch.arange(len(x)) % 3
    masks = sample_masks(model, seeds=torch.arange(n) + 5)
    batched, loop = (
        value_and_gradient(model, instance_loss(model, x, y, masks=masks, mode=mode))  # type: ignore[arg-type]
        for mode in ("batched", "loop")
    )
    close(batched, loop, ALGEBRA)
    one_pass = ensemble_predict(model, x, masks=masks)
    close(one_pass, ensemble_predict(model, x, masks=masks, max_rows=len(x)), ALGEBRA)
    if not grouped:
        return
    total: Tensor = torch.zeros((), dtype=x.dtype)
    block = -(-len(x) // n)
    for r in range(n):
        rows = slice(r * block, (r + 1) * block)
        if len(x[rows]):
            with use_masks(model, masks.select(r)):
                share = len(x[rows]) / len(x)
                total = total + F.cross_entropy(model(x[rows]), y[rows]) * share
    found = instance_loss(model, x, y, masks=masks, mode="grouped")
    close(value_and_gradient(model, found), value_and_gradient(model, total), ALGEBRA)


@settings(max_examples=20)
@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from(LAWS),
    st.integers(2, 4),
    st.integers(2, 5),
    st.sampled_from([2, 4, 6]),
    seeds(),
)
def test_any_layout(layout: str, law: str, n: int, size: int, length: int, seed: int) -> None:
    assume(layout != "twice" or length not in (size, n * size))  # see below
    # The bits of law `activation` go by the place in the pass, so only copies can agree.
    model = adapted(Net(layout), law, seed)
    check(model, normal(size, length, WIDTH, seed=seed), n, grouped=law != "activation")


def test_two_calls_of_one_shape_with_two_places_are_refused() -> None:
    model, x = adapted(Net("twice")), normal(2, 4, WIDTH, seed=3)
    masks = sample_masks(model, seeds=torch.arange(2))
    with pytest.raises(ValueError, match=r"\(4, 4, 6\): calls of one shape .* in several places"):
        instance_loss(model, x, torch.zeros(2).long(), masks=masks, mode="batched")


@pytest.mark.parametrize("layout", LAYOUTS[:-1])
def test_one_example_and_equal_ones(layout: str) -> None:
    model, x = adapted(Net(layout)), normal(1, 4, WIDTH, seed=3)
    check(model, x, 3, grouped=False)
    check(model, x.expand(4, -1, -1), 4)  # as many examples as tokens, and none differs


@pytest.mark.parametrize(
    "model",
    [WithTable(), Sorting(around=True), Mirror("flip"), Mirror("roll")],
)
def test_what_has_no_place_runs_once_an_instance(model: nn.Module) -> None:
    model = adapted(model)
    for size, n in ((4, 2), (5, 3), (1, 2)):
        check(model, normal(size, 3, WIDTH, seed=size), n, grouped=size > 1)
    assert all("forward" not in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_transformer_encoders(batch_first: bool, training: bool) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=batch_first)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x: Tensor) -> Tensor:
            x = x if batch_first else x.transpose(0, 1)
            return self.encoder(x).mean(1 if batch_first else 0)[:, :3]

    check(adapted(Encoder()).train(training), normal(4, 4, WIDTH, seed=1), 4)


REMEDY = r"mode='loop'; in ensemble_predict, max_rows"


@pytest.mark.parametrize(
    ("model", "training", "message"),
    [
        (
            Sorting(around=False),
            False,
            r"layer 'layer' .* \(8, 3, 6\).* ordered or chosen by their",
        ),
        (Shared("mean"), False, "examples of a batch must not meet in the model"),
        (Shared("mean in training"), True, "examples of a batch must not meet in the model"),
        (Shared("norm"), True, "must not meet, but 'norm' normalises over the batch"),
    ],
)
def test_what_cannot_be_placed_is_refused(model: nn.Module, training: bool, message: str) -> None:
    model, x = adapted(model).train(training), normal(4, 3, WIDTH, seed=2)
    y, masks = torch.arange(4) % 3, sample_masks(model, seeds=torch.arange(2))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with pytest.raises(ValueError, match=f"(?s){message}.*{REMEDY}"):
        instance_loss(model, x, y, masks=masks, mode="batched")
    assert all(torch.equal(before[name], b) for name, b in model.named_buffers())
    assert torch.isfinite(instance_loss(model, x, y, masks=masks, mode="loop"))
    if not training:
        with pytest.raises(ValueError, match=REMEDY):
            ensemble_predict(model, x, masks=masks)
        ensemble_predict(model, x, masks=masks, max_rows=4)
    elif not isinstance(model.norm, nn.BatchNorm1d):
        check(model.eval(), x, 2)  # there, examples do not meet


def test_the_probe_runs_once_and_leaves_no_trace() -> None:
    model, x = adapted(Net("second")).train(), normal(4, 4, WIDTH, seed=2)
    y, calls = torch.arange(4) % 3, []
    model.middle.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[operator,union-attr]
    masks = sample_masks(model, seeds=torch.arange(2))
    instance_loss(model, x, y, masks=masks)
    probes = len(calls) - 1
    assert probes > 0
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    for size in (4, 3, 2):  # whatever the number of examples
        instance_loss(model, x[:size], y[:size], masks=masks)
    assert len(calls) - 1 - probes == 3
    instance_loss(model, x[:, :2], y, masks=masks)  # another length of text
    assert len(calls) - 1 - probes > 4
    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in model.modules())


# --- grouped: losses in which examples meet ------------------------------------------------------


def pairs(outputs: Tensor, targets: Tensor) -> Tensor:
    chosen, rejected = outputs[:, 0].chunk(2)
    return -F.logsigmoid(chosen - rejected).mean()


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs @ outputs.T, torch.arange(len(outputs)))


def spread(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.var(dim=0).sum()


@pytest.mark.parametrize("loss_fn", [pairs, contrastive, spread])
def test_grouped_refuses_a_loss_in_which_examples_meet(loss_fn) -> None:  # type: ignore[no-untyped-def]
    model, x = adapted(Net("leading")), normal(4, 2, WIDTH, seed=2)
    y, masks = torch.arange(4) % 3, sample_masks(model, seeds=torch.arange(2))
    with pytest.raises(ValueError, match="loss_fn must be a mean over examples for mode='grouped'"):
        instance_loss(model, x, y, masks=masks, mode="grouped", loss_fn=loss_fn)
    loop, batched = (
        instance_loss(model, x, y, masks=masks, mode=mode, loss_fn=loss_fn)  # type: ignore[arg-type]
        for mode in ("loop", "batched")
    )
    close(loop, batched, ALGEBRA)


def test_grouped_takes_any_weights_of_examples() -> None:
    model, x = adapted(Net("leading")), normal(4, 2, WIDTH, seed=2)
    y, masks = torch.tensor([0, 1, -100, 2]), sample_masks(model, seeds=torch.arange(2))
    weights = torch.tensor([5.0, 0.1, 1.0]).double()
    for loss_fn in (
        F.cross_entropy,
        lambda o, t: F.cross_entropy(o, t, weight=weights),
        lambda o, t: F.cross_entropy(o, t, reduction="sum") / 7,
        nn.CrossEntropyLoss(label_smoothing=0.1),
    ):
        assert instance_loss(model, x, y, masks=masks, mode="grouped", loss_fn=loss_fn).isfinite()


def test_grouped_says_that_one_row_has_one_mask() -> None:
    model, x = adapted(Net("leading")), normal(1, 2, WIDTH, seed=2)
    masks = sample_masks(model, seeds=torch.arange(3))
    with pytest.warns(UserWarning, match="one row to deal out among 3 masks"):
        instance_loss(model, x, torch.zeros(1).long(), masks=masks, mode="grouped")
