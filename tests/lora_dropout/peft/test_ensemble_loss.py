"""The loss of an evaluation is the user's own, of the averaged outputs, or says what it is."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from lora_dropout import sample_masks, use_masks
from lora_dropout.peft import LoRADropoutMixin, LoRADropoutTrainer, attach
from lora_dropout.peft.ensemble_output import ensemble_forward
from lora_dropout.prediction.averaging import OUTPUTS
from lora_dropout.seeds import derived_generator
from tests.lora_dropout.peft.families import family_batch, family_model
from tests.lora_dropout.peft.models import batch, peft_model

pytestmark = pytest.mark.filterwarnings("ignore")
WEIGHT = torch.tensor([10.0, 0.1, 0.1])


class Rows(Dataset):
    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: value[index] for name, value in self.data.items()}


def _arguments(folder: Path, **more: Any) -> TrainingArguments:
    return TrainingArguments(
        str(folder), use_cpu=True, report_to=[], remove_unused_columns=False, disable_tqdm=True,
        **more,
    )  # fmt: skip


def _average(model: nn.Module, data: dict[str, Tensor], n: int) -> Tensor:
    masks = sample_masks(model, n_instances=n, generator=derived_generator(42, "evaluation"))
    inputs = {name: value for name, value in data.items() if name != "labels"}
    found = []
    for index in range(n):
        with torch.no_grad(), use_masks(model.eval(), masks.select(index)):
            found.append(model(**inputs).logits)
    return torch.stack(found).softmax(-1).mean(0).log()


class Weighted(Trainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs.logits, labels, weight=WEIGHT)
        return (loss, outputs) if return_outputs else loss


class Ours(LoRADropoutMixin, Weighted):
    pass


def _half(outputs: Any, labels: Any, **_: Any) -> Tensor:
    return 0.5 * F.cross_entropy(outputs.logits, labels)


@pytest.mark.parametrize("only_loss", [False, True])
@pytest.mark.parametrize("kind", ["overridden", "function", "smoothed"])
def test_own_losses(kind: str, only_loss: bool, tmp_path: Path) -> None:
    model, data = attach(peft_model("bert")), batch("bert")
    own: Any = {"overridden": {}, "function": {"compute_loss_func": _half}, "smoothed": {}}[kind]
    smoothing = 0.2 if kind == "smoothed" else 0.0
    trainer = Ours if kind == "overridden" else LoRADropoutTrainer
    arguments = _arguments(
        tmp_path, label_smoothing_factor=smoothing, prediction_loss_only=only_loss
    )
    run = trainer(model, arguments, eval_dataset=Rows(data), eval_instances=3, **own)
    found = run.evaluate()
    outputs, labels = _average(model, data, 3), data["labels"]
    wanted = {
        "overridden": F.cross_entropy(outputs, labels, weight=WEIGHT),
        "function": 0.5 * F.cross_entropy(outputs, labels),
        "smoothed": F.cross_entropy(outputs, labels, label_smoothing=0.2),
    }[kind]
    # Label smoothing as transformers does it: a mean over classes, as torch's.
    assert found["eval_loss"] == pytest.approx(float(wanted), rel=1e-5)
    assert "eval_loss_of_members" not in found


def test_a_loss_from_the_inside_is_named(tmp_path: Path) -> None:
    name = "wav2vec2-speech"  # CTC adds the lengths of the audio to outputs and labels
    run = LoRADropoutTrainer(
        attach(family_model(name, fresh=False)), _arguments(tmp_path),
        eval_dataset=Rows(family_batch(name)), eval_instances=3,
    )  # fmt: skip
    found = run.evaluate()
    assert found["eval_loss_of_members"] == found["eval_loss"]


class Scaled(Trainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        return (3.0 * loss + 1.0, outputs) if return_outputs else 3.0 * loss + 1.0


class OurScaled(LoRADropoutMixin, Scaled):
    pass


def test_a_loss_made_of_the_members_losses_is_named(tmp_path: Path) -> None:
    for name, named in (("wav2vec2-speech", True), ("bert-classes", False)):
        run = OurScaled(
            attach(family_model(name, fresh=False)), _arguments(tmp_path),
            eval_dataset=Rows(family_batch(name)), eval_instances=3,
        )  # fmt: skip
        assert ("eval_loss_of_members" in run.evaluate()) == named


class Tuples(nn.Module):
    """Loss first where there are labels, then scores, then what are no scores."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> tuple[Any, ...]:
        z = self.layer(x)
        rest = (z, {"sine": z.sin(), "cache": object()})
        return rest if labels is None else (F.cross_entropy(z, labels), *rest)


def test_tuples_of_a_bare_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=["layer"], init_lora_weights=False)
    model = attach(get_peft_model(Tuples(), settings))
    data = {"x": torch.randn(5, 4), "labels": torch.randint(0, 3, (5,))}
    run = LoRADropoutTrainer(model, _arguments(tmp_path), eval_instances=3, average="probabilities")
    loss, (logits, rest), _ = run.prediction_step(run.model, dict(data), False)
    masks = sample_masks(model, n_instances=3, generator=derived_generator(42, "evaluation"))
    members = []
    for index in range(3):
        with torch.no_grad(), use_masks(model, masks.select(index)):
            members.append(model(data["x"])[0])
    each = torch.stack(members)
    torch.testing.assert_close(logits.softmax(-1), each.softmax(-1).mean(0))
    torch.testing.assert_close(rest["sine"], each.sin().mean(0))
    assert rest["cache"] is None
    torch.testing.assert_close(loss, F.cross_entropy(logits, data["labels"]))
    assert not run._members_loss
    again = run.prediction_step(run.model, {"x": data["x"]}, False)[1]
    assert torch.equal(again[0], logits)


def test_a_problem_that_only_labels_state_is_warned_of(tmp_path: Path) -> None:
    model, data = attach(family_model("bert-classes", fresh=False)), family_batch("bert-classes")
    inputs = {"input_ids": data["input_ids"]}
    several = {**inputs, "labels": torch.ones(3, 3)}
    run = LoRADropoutTrainer(model, _arguments(tmp_path), eval_instances=2)
    run.prediction_step(run.model, dict(inputs), False)
    with pytest.warns(UserWarning, match="averaged probabilities before and averages sigmoids now"):
        run.prediction_step(run.model, dict(several), False)
    model.get_base_model().config.problem_type = None
    stated = LoRADropoutTrainer(model, _arguments(tmp_path), eval_instances=2, average="sigmoids")
    first = stated.prediction_step(stated.model, dict(inputs), False)[1]
    assert torch.equal(first, stated.prediction_step(stated.model, dict(several), False)[1])


def test_forward_is_given_back_and_generates_nothing() -> None:
    model = attach(peft_model("gpt2"))
    masks = sample_masks(model, n_instances=2)
    before = model.forward
    with (
        pytest.raises(ValueError, match="generates no tokens: evaluate with inference='mean'"),
        ensemble_forward(model, masks, lambda name: OUTPUTS, []),
    ):
        model.generate(input_ids=torch.tensor([[1, 2]]))
    assert model.forward == before
    assert "forward" not in vars(model)
    assert "generate" not in vars(model)


def test_integers_must_agree() -> None:
    class Codes(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
            logits = self.model(**inputs).logits
            return {"logits": logits, "codes": (1e6 * logits).long(), "size": torch.tensor(3)}

    model = Codes(attach(peft_model("bert")))
    data = batch("bert")
    del data["labels"]
    masks = sample_masks(model, n_instances=2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with ensemble_forward(model, masks, lambda name: OUTPUTS, ["codes"]):
            assert model(**data)["size"] == 3
        with (
            pytest.raises(ValueError, match=r"outputs of torch.int64 in 'codes' that differ"),
            ensemble_forward(model, masks, lambda name: OUTPUTS, []),
        ):
            model(**data)


class Inner(Trainer):
    """Calls a part of the model by itself."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        outputs = model.get_base_model()(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


class Both(Inner):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        return (loss + model(**inputs).loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("kind", [Inner, Both])
def test_a_part_of_the_model_is_no_ensemble(kind: type, tmp_path: Path) -> None:
    own = type("Own", (LoRADropoutMixin, kind), {})
    run = own(attach(peft_model("bert")), _arguments(tmp_path), eval_instances=2)
    with pytest.raises(ValueError, match=r"layer '.*' ran outside of the model's forward pass"):
        run.prediction_step(run.model, batch("bert"), False)
    run.inference = "mean"
    run.prediction_step(run.model, batch("bert"), False)


def test_logits_of_no_known_meaning_are_averaged_with_a_word(tmp_path: Path) -> None:
    def run(**more: Any) -> Any:
        model = attach(family_model("bert-classes", fresh=False))
        inner = model.get_base_model()
        inner.__class__ = type("Strange", (nn.Module,), dict(vars(type(inner))))
        run = LoRADropoutTrainer(model, _arguments(tmp_path), eval_instances=2, **more)
        return run.prediction_step(run.model, family_batch("bert-classes"), False)

    with pytest.warns(UserWarning, match="averages the logits of Strange as they are"):
        run()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(average="probabilities")
