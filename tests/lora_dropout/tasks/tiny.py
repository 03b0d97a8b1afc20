"""A tokenizer and models of a few thousand weights, made on the spot."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

WORDS = [
    "good",
    "great",
    "fine",
    "nice",
    "bad",
    "awful",
    "poor",
    "dull",
    "film",
    "plot",
    "cast",
    "story",
    "a",
    "the",
    "is",
    "was",
    "very",
    "not",
    "and",
    "of",
    "who",
    "what",
    "where",
    "when",
    "in",
    "paris",
    "rome",
    "1976",
    "1980",
    "capital",
    "france",
    "italy",
    "city",
    "born",
    "he",
    "she",
    "it",
]
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def bert_tokenizer() -> Any:
    """Whole words, BERT's special tokens."""
    vocabulary = {word: i for i, word in enumerate([*_SPECIAL, *WORDS, *".,?:!"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=64,
    )


def bytes_tokenizer() -> Any:
    """GPT-2's kind, with the letters of MMLU as tokens after a blank."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<end>", *alphabet, "ĠA", "ĠB", "ĠC", "ĠD"])}
    merges = [("Ġ", letter) for letter in "ABCD"]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>", pad_token="<end>"
    )


def save_tiny_bert(folder: Path, **settings: Any) -> Path:
    """A pretrained-looking BERT and its tokenizer on disk."""
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,  # features of some size, as after pretraining
        **settings,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_gpt2(tokenizer: Any) -> Any:
    """A causal model with absolute positions."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=512)
    return GPT2LMHeadModel(config).eval()


def save_tiny_gpt2(folder: Path) -> Path:
    """The same and its tokenizer on disk."""
    tokenizer = bytes_tokenizer()
    tiny_gpt2(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
