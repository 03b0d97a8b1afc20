"""Tiny models of many families and heads, made from configurations alone, each with a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers as tf
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from tests.lora_dropout.commands.text_families import FAMILIES as TEXT
from tests.lora_dropout.strategies import generator

_BATCH, _LENGTH, _CLASSES, _VOCABULARY = 3, 8, 3, 30
_ATTENTION = r".*\.(query|value|query_proj|value_proj|q_proj|v_proj|q|v|c_attn|q_lin|v_lin|"
_ATTENTION += r"query_key_value|qkv_proj|layer_1|q_head|v_head|key|Wqkv|in_proj|fc1)"

_VISION = {
    "num_labels": _CLASSES,
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
_SEGFORMER = {
    "num_labels": _CLASSES,
    "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 16],
    "patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16, "classifier_dropout_prob": 0.0,
}  # fmt: skip
_SWIN = {
    "num_labels": _CLASSES, "image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1],
    "num_heads": [1, 2], "window_size": 2,
}  # fmt: skip
_SPEECH = {
    "num_labels": _CLASSES,
    "vocab_size": _VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 20, "conv_dim": [8, 8], "conv_stride": [5, 4], "conv_kernel": [10, 8],
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
    "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "classifier_proj_size": 8,
    "ctc_zero_infinity": True,
}  # fmt: skip
_WHISPER = {
    "vocab_size": _VOCABULARY, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20, "num_mel_bins": 8, "max_source_positions": 8,
    "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "mask_time_prob": 0.0,
}  # fmt: skip
_YOLOS = {**_VISION, "image_size": [16, 16], "num_detection_tokens": 4}

_IMAGE, _AUDIO = "AutoModelForImageClassification", "AutoModelForAudioClassification"


class Family(NamedTuple):
    """A configuration's class and settings, a head's class, and the kind of batch it takes."""

    config: type
    settings: dict[str, Any]
    head: str
    kind: str


def _text(names: str, head: str, kind: str, **more: Any) -> dict[str, Family]:
    found = {}
    for name in names.split():
        config, settings = TEXT[name]
        label = f"{name}-{kind}"
        found[label] = Family(config, {**settings, **more}, head, kind)
    return found


FAMILIES: dict[str, Family] = {
    **_text(
        "bert roberta albert distilbert electra deberta deberta_v2 mpnet xlnet xlm funnel "
        "longformer big_bird convbert mobilebert rembert roformer modernbert gpt2 gpt_neox opt "
        "bloom llama qwen2 gemma phi3 mixtral bart",
        "AutoModelForSequenceClassification", "classes", num_labels=_CLASSES,
    ),
    **_text("bert deberta_v2 gpt2", "AutoModelForSequenceClassification", "number", num_labels=1),
    **_text(
        "bert roberta llama", "AutoModelForSequenceClassification", "labels",
        num_labels=_CLASSES, problem_type="multi_label_classification",
    ),
    **_text("roberta", "AutoModelForSequenceClassification", "numbers",
            num_labels=_CLASSES, problem_type="regression"),
    **_text("bert electra gpt2 xlnet", "AutoModelForTokenClassification", "token_classes",
            num_labels=_CLASSES),
    **_text("bert distilbert albert", "AutoModelForQuestionAnswering", "span"),
    **_text("bert roberta", "AutoModelForMultipleChoice", "choices"),
    **_text("bert roberta distilbert modernbert", "AutoModelForMaskedLM", "tokens"),
    **_text("bert", "AutoModelForNextSentencePrediction", "pairs"),
    **_text("electra", "AutoModelForPreTraining", "replaced"),
    **_text("bert albert", "AutoModelForPreTraining", "pretraining"),
    **_text("gpt2", "GPT2DoubleHeadsModel", "two_heads"),
    **_text("gpt2 gpt_neox gptj opt bloom falcon llama mixtral qwen2 qwen2_moe gemma phi3",
            "AutoModelForCausalLM", "tokens"),
    **_text("t5 mt5 bart mbart", "AutoModelForSeq2SeqLM", "seq2seq"),
    "vit-image": Family(tf.ViTConfig, _VISION, _IMAGE, "image"),
    "vit_msn-image": Family(tf.ViTMSNConfig, _VISION, _IMAGE, "image"),
    "beit-image": Family(tf.BeitConfig, _VISION, _IMAGE, "image"),
    "dinov2-image": Family(tf.Dinov2Config, _VISION, _IMAGE, "image"),
    "swin-image": Family(tf.SwinConfig, _SWIN, _IMAGE, "image"),
    "segformer-image": Family(tf.SegformerConfig, _SEGFORMER, _IMAGE, "image"),
    "segformer-pixels": Family(
        tf.SegformerConfig, _SEGFORMER, "AutoModelForSemanticSegmentation", "pixels"
    ),
    "vit-masked_image": Family(
        tf.ViTConfig, {**_VISION, "encoder_stride": 8},
        "AutoModelForMaskedImageModeling", "masked_image"
    ),
    "yolos-boxes": Family(
        tf.YolosConfig, _YOLOS, "AutoModelForObjectDetection", "boxes"
    ),
    "wav2vec2-audio": Family(tf.Wav2Vec2Config, _SPEECH, _AUDIO, "audio"),
    "hubert-audio": Family(tf.HubertConfig, _SPEECH, _AUDIO, "audio"),
    "wav2vec2-speech": Family(tf.Wav2Vec2Config, _SPEECH, "AutoModelForCTC", "speech"),
    "whisper-seq2seq": Family(tf.WhisperConfig, _WHISPER, "AutoModelForSpeechSeq2Seq", "mel"),
}  # fmt: skip


def family_model(name: str, *, fresh: bool = True, **more: Any) -> nn.Module:
    """A PEFT model with LoRA, in eval mode: with B = 0 if fresh, else with a random update."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    config = family.config(**{"initializer_range": 0.2, **family.settings})
    head = getattr(tf, family.head)
    model = getattr(head, "from_config", head)(config)  # an Auto class, or the head itself
    fitting = LoraConfig(r=2, target_modules=_ATTENTION, init_lora_weights=fresh, **more)
    return get_peft_model(model.eval(), fitting).eval()


def family_batch(name: str, size: int = _BATCH) -> dict[str, Tensor]:
    """Inputs and labels."""
    random = generator(1)
    return _BATCHES[FAMILIES[name].kind](size, random)


def _tokens(size: int, random: torch.Generator) -> Tensor:
    tokens = torch.randint(4, 15, (size, _LENGTH), generator=random)
    tokens[:, -1] = 3  # the end of a text
    return tokens


def _classes(*shape: int, random: torch.Generator, most: int = _CLASSES) -> Tensor:
    return torch.randint(0, most, shape, generator=random)


def _token_labels(size: int, random: torch.Generator, most: int = 15) -> Tensor:
    labels = _classes(size, _LENGTH, random=random, most=most)
    labels[0, :3] = -100
    return labels


Batch = Callable[[int, torch.Generator], dict[str, Any]]
_BATCHES: dict[str, Batch] = {
    "classes": lambda n, g: {"input_ids": _tokens(n, g), "labels": _classes(n, random=g)},
    "pairs": lambda n, g: {"input_ids": _tokens(n, g), "labels": _classes(n, random=g, most=2)},
    "replaced": lambda n, g: {
        "input_ids": _tokens(n, g), "labels": _classes(n, _LENGTH, random=g, most=2),
        "attention_mask": torch.ones(n, _LENGTH, dtype=torch.int64),
    },
    "pretraining": lambda n, g: {"input_ids": _tokens(n, g)},
    "two_heads": lambda n, g: {
        "input_ids": torch.randint(4, 15, (n, 2, _LENGTH), generator=g),
        "mc_token_ids": torch.full((n, 2), _LENGTH - 1),
    },
    "number": lambda n, g: {"input_ids": _tokens(n, g), "labels": torch.randn(n, generator=g)},
    "numbers": lambda n, g: {"input_ids": _tokens(n, g), "labels": torch.randn(n, 3, generator=g)},
    "labels": lambda n, g: {
        "input_ids": _tokens(n, g), "labels": _classes(n, 3, random=g, most=2).float()
    },
    "token_classes": lambda n, g: {
        "input_ids": _tokens(n, g), "labels": _token_labels(n, g, _CLASSES)
    },
    "tokens": lambda n, g: {"input_ids": _tokens(n, g), "labels": _token_labels(n, g)},
    "seq2seq": lambda n, g: {"input_ids": _tokens(n, g), "labels": _token_labels(n, g)},
    "span": lambda n, g: {
        "input_ids": _tokens(n, g), "start_positions": _classes(n, random=g),
        "end_positions": _classes(n, random=g, most=12),
    },
    "choices": lambda n, g: {
        "input_ids": torch.randint(4, 15, (n, 2, _LENGTH), generator=g),
        "labels": _classes(n, random=g, most=2),
    },
    "image": lambda n, g: {
        "pixel_values": torch.randn(n, 3, 16, 16, generator=g), "labels": _classes(n, random=g)
    },
    "pixels": lambda n, g: {
        "pixel_values": torch.randn(n, 3, 16, 16, generator=g),
        "labels": _classes(n, 16, 16, random=g),
    },
    "masked_image": lambda n, g: {
        "pixel_values": torch.randn(n, 3, 16, 16, generator=g),
        "bool_masked_pos": torch.ones(n, 4, dtype=torch.bool),
    },
    "boxes": lambda n, g: {
        "pixel_values": torch.randn(n, 3, 16, 16, generator=g),
        "labels": [{"class_labels": torch.tensor([i % 3]),
                    "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.2]])} for i in range(n)],
    },
    "audio": lambda n, g: {
        "input_values": torch.randn(n, 400, generator=g), "labels": _classes(n, random=g)
    },
    "speech": lambda n, g: {
        "input_values": torch.randn(n, 400, generator=g),
        "labels": 1 + _classes(n, 4, random=g, most=20),
    },
    "mel": lambda n, g: {
        "input_features": torch.randn(n, 8, 16, generator=g), "labels": _token_labels(n, g)
    },
}  # fmt: skip
