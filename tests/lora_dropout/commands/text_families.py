"""Language models of many families, with a few hundred to a few thousand weights each."""

from pathlib import Path
from typing import Any

import torch
import transformers as tf

from tests.lora_dropout.tasks.tiny import bert_tokenizer

_SIZE = len(bert_tokenizer())  # [PAD] is 0, [SEP] 3: also the end of a text
_ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
_BERT = {
    "vocab_size": _SIZE, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 20, "max_position_embeddings": 70, "pad_token_id": 0,
}  # fmt: skip
_LLAMA = {**_BERT, **_ENDS, "num_key_value_heads": 1}
_GPT = {"vocab_size": _SIZE, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 70, **_ENDS}
_T5 = {"vocab_size": _SIZE, "d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 2,
       **_ENDS, "decoder_start_token_id": 0}  # fmt: skip
_BART = {
    "vocab_size": _SIZE, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20, "max_position_embeddings": 70, **_ENDS, "decoder_start_token_id": 3,
}  # fmt: skip
_DEBERTA = {**_BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_MOE = {**_LLAMA, "num_experts_per_tok": 1}
_SQUEEZE = {f"{part}_groups": 1 for part in ("post_attention", "intermediate", "output")}
_SQUEEZE |= dict.fromkeys(("q_groups", "k_groups", "v_groups"), 1)

FAMILIES: dict[str, tuple[type, dict[str, Any]]] = {
    "bert": (tf.BertConfig, _BERT),
    "roberta": (tf.RobertaConfig, _BERT),
    "albert": (tf.AlbertConfig, {**_BERT, "embedding_size": 8}),
    "distilbert": (
        tf.DistilBertConfig,
        {"vocab_size": _SIZE, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 20},
    ),
    "electra": (tf.ElectraConfig, {**_BERT, "embedding_size": 8}),
    "deberta": (tf.DebertaConfig, _DEBERTA),
    "deberta_v2": (tf.DebertaV2Config, {**_DEBERTA, "position_buckets": 8, "share_att_key": True}),
    "mpnet": (tf.MPNetConfig, _BERT),
    "xlnet": (
        tf.XLNetConfig,
        {"vocab_size": _SIZE, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 20},
    ),
    "xlm": (tf.XLMConfig, {"vocab_size": _SIZE, "emb_dim": 16, "n_layers": 2, "n_heads": 2}),
    "funnel": (
        tf.FunnelConfig,
        {"vocab_size": _SIZE, "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 20,
         "block_sizes": [1, 1], "block_repeats": [1, 1], "architectures": ["FunnelModel"]},
    ),
    "longformer": (tf.LongformerConfig, {**_BERT, "attention_window": 8}),
    "big_bird": (tf.BigBirdConfig, {**_BERT, "attention_type": "original_full"}),
    "convbert": (tf.ConvBertConfig, {**_BERT, "embedding_size": 16}),
    "mobilebert": (
        tf.MobileBertConfig,
        {**_BERT, "embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
    ),
    "squeezebert": (tf.SqueezeBertConfig, {**_BERT, **_SQUEEZE, "embedding_size": 16}),
    "rembert": (
        tf.RemBertConfig,
        {**_BERT, "input_embedding_size": 8, "output_embedding_size": 8},
    ),
    "fnet": (tf.FNetConfig, {k: v for k, v in _BERT.items() if k != "num_attention_heads"}),
    "canine": (
        tf.CanineConfig,
        {**_BERT, "num_hash_functions": 2, "num_hash_buckets": 16, "downsampling_rate": 4,
         "local_transformer_stride": 4},
    ),
    "roformer": (tf.RoFormerConfig, {**_BERT, "embedding_size": 16}),
    "modernbert": (tf.ModernBertConfig, {**_BERT, "cls_token_id": 2, "sep_token_id": 3}),
    "luke": (tf.LukeConfig, {**_BERT, "entity_vocab_size": 5, "entity_emb_size": 8}),
    "gpt2": (tf.GPT2Config, _GPT),
    "gpt_neox": (tf.GPTNeoXConfig, _BERT),
    "gptj": (tf.GPTJConfig, {**_GPT, "rotary_dim": 4}),
    "opt": (
        tf.OPTConfig,
        {**_BERT, **_ENDS, "ffn_dim": 20, "word_embed_proj_dim": 16},
    ),
    "bloom": (tf.BloomConfig, {"vocab_size": _SIZE, "hidden_size": 16, "n_layer": 2, "n_head": 2,
                               **_ENDS}),
    "falcon": (tf.FalconConfig, {**_BERT, **_ENDS}),
    "llama": (tf.LlamaConfig, _LLAMA),
    "mixtral": (tf.MixtralConfig, {**_MOE, "num_local_experts": 2}),
    "qwen2": (tf.Qwen2Config, _LLAMA),
    "qwen2_moe": (
        tf.Qwen2MoeConfig,
        {**_MOE, "num_experts": 2, "moe_intermediate_size": 8,
         "shared_expert_intermediate_size": 8},
    ),
    "phimoe": (tf.PhimoeConfig, {**_MOE, "num_local_experts": 2}),  # its router is a Linear
    "deepseek_v3": (
        tf.DeepseekV3Config,  # its dense layers have the names of experts
        {**_MOE, "num_key_value_heads": 2, "n_routed_experts": 2, "n_group": 1, "topk_group": 1,
         "moe_intermediate_size": 8, "q_lora_rank": 4, "kv_lora_rank": 4, "qk_rope_head_dim": 4,
         "qk_nope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 1},
    ),
    "gemma": (tf.GemmaConfig, {**_LLAMA, "head_dim": 8}),
    "phi3": (tf.Phi3Config, _LLAMA),
    "t5": (tf.T5Config, _T5),
    "mt5": (tf.MT5Config, _T5),
    "bart": (tf.BartConfig, _BART),
    "mbart": (tf.MBartConfig, _BART),
}  # fmt: skip


def save_family(name: str, folder: Path, *, head: str = "AutoModel", **more: Any) -> Path:
    """Save a model and a tokenizer.

    `AutoModel` is what pretraining leaves: the files hold no head of a task.
    """
    kind, settings = FAMILIES[name]
    torch.manual_seed(1)
    # Features of some size, as after pretraining.
    config = kind(**{**settings, "initializer_range": 0.3, **more})
    model = getattr(tf, head).from_config(config)
    model.save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder
