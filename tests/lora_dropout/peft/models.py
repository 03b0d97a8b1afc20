"""Tiny models of three shapes, made from their configurations; seeded weights."""

import torch
from peft import AdaLoraConfig, LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from tests.lora_dropout.strategies import generator

VOCABULARY = 19
SHAPES = ("bert", "gpt2", "llama")
TARGETS = {
    "bert": ["query", "value", "dense"],
    "gpt2": ["c_attn", "c_fc"],
    "llama": ["q_proj", "down_proj"],
}


def base_model(shape: str, seed: int = 0) -> nn.Module:
    """A tiny model without dropout of its own; BERT with 3 classes, the others predict tokens."""
    torch.manual_seed(seed)
    if shape == "bert":
        config = BertConfig(
            vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=12, max_position_embeddings=16, num_labels=3,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
        )  # fmt: skip
        return BertForSequenceClassification(config)
    if shape == "gpt2":
        config = GPT2Config(
            vocab_size=VOCABULARY, n_embd=8, n_layer=2, n_head=2, n_positions=16,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3,
            bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        return GPT2LMHeadModel(config)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
        initializer_range=0.3, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def peft_config(shape: str, kind: str = "lora", **more: object) -> LoraConfig:
    task = TaskType.SEQ_CLS if shape == "bert" else TaskType.CAUSAL_LM
    common = {"task_type": task, "target_modules": TARGETS[shape], "lora_alpha": 3,
              "fan_in_fan_out": shape == "gpt2", **more}  # fmt: skip
    if kind == "lora":
        return LoraConfig(**{"r": 2, **common})  # type: ignore[arg-type]
    schedule = {"init_r": 2, "target_r": 1, "total_step": 9, "tinit": 1, "tfinal": 1}
    return AdaLoraConfig(**{**schedule, **common})  # type: ignore[arg-type]


def peft_model(shape: str, kind: str = "lora", seed: int = 0, **more: object) -> nn.Module:
    """A PEFT model with random factors, as after training: they start at an update of zero."""
    return randomize(get_peft_model(base_model(shape, seed), peft_config(shape, kind, **more)))


def randomize(model: nn.Module, seed: int = 1) -> nn.Module:
    random = generator(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=random))
    return model


def batch(shape: str, size: int = 6, length: int = 5, seed: int = 2) -> dict[str, Tensor]:
    """Tokens with padding, and labels of the model's kind."""
    random = generator(seed)
    tokens = torch.randint(1, VOCABULARY, (size, length), generator=random)
    attention = torch.ones_like(tokens)
    attention[0, -2:] = 0
    tokens = tokens * attention
    if shape == "bert":
        labels = torch.randint(0, 3, (size,), generator=random)
    else:
        labels = tokens.masked_fill(attention == 0, -100)
    return {"input_ids": tokens, "attention_mask": attention, "labels": labels}
