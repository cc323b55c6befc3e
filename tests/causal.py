"""Tiny causal language models, tokenizers with the tails of well-known chat templates, and records."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.integrations.flash_attention import get_target_dtype
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from predrec.data_collators.two_views import TwoViews

RECORDS = [
    TwoViews("lines with a vowel", ".*[aeiou].*", "Write a regular expression."),
    TwoViews("lines that begin with a digit, then 'dog'", "[0-9]dog.*", "Write a regular expression."),
    TwoViews("words of three letters", "[a-z]{3}", "Write a regular expression."),
    TwoViews("every line", ".*", "Write a regular expression."),
]

FLASH = "flash_stand_in"
"""Attention that refuses float32, as flash kernels do."""


def _flash(module, *tensors_and_mask, **kwargs):
    *tensors, mask = tensors_and_mask
    # As transformers does around the kernel: under autocast, rotary positions leave float32.
    target = get_target_dtype(tensors[0], module)
    tensors = [tensor if target is None else tensor.to(target) for tensor in tensors]
    if tensors[0].dtype == torch.float32:
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
    return sdpa_attention_forward(module, *tensors, mask, **kwargs)


AttentionInterface.register(FLASH, _flash)
AttentionMaskInterface.register(FLASH, sdpa_mask)

MARKS = ("<s>", "</s>", "<pad>", "<|head|>", "<|endhead|>", "<|eot|>", "<|im_start|>", "<|im_end|>", "<|end|>")

# Only what follows and precedes contents is like the families'; the words are ours.
TEMPLATES = {
    "llama": "{{ bos_token }}{% if messages[0].role != 'system' %}<|head|>system<|endhead|>\nToday: "
    "{{ date_string }}<|eot|>{% endif %}{% for m in messages %}<|head|>{{ m.role }}<|endhead|>\n"
    "{{ m.content | trim }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|endhead|>\n{% endif %}",
    "gemma": "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>{{ 'model' if m.role == 'assistant' else "
    "m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n"
    "{% endif %}",
    "openelm": "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}",
    "olmo": "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "qwen": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "thoughts": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last and m.role == 'assistant' %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "deepseek": "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|head|>{{ m.content }}"
    "{{ eos_token }}{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|head|>{% endif %}",
    "no tail": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
}

TEXTS = [part for record in RECORDS for part in (record.text, record.code, record.system)]


def tokenizer(template: str | None = None, pad_is_eos: bool = False, adds_bos: bool = False):
    """Returns a byte-level BPE tokenizer with a template's name in `TEMPLATES`, or none."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=list(MARKS), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    if adds_bos:
        from tokenizers.processors import TemplateProcessing

        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>" if pad_is_eos else "<pad>",
        extra_special_tokens=list(MARKS[3:]),
    )
    made.chat_template = TEMPLATES[template] if template else None
    return made


def with_flash(model: PreTrainedModel) -> PreTrainedModel:
    """Puts the stand-in into a model; transformers would look for a kernel of this name."""
    model.config._attn_implementation = FLASH
    return model


def model(kind: str = "llama", attention: str = "sdpa", vocab_size: int = 400, seed: int = 0) -> PreTrainedModel:
    """Returns a tiny random model, float32, without dropout."""
    torch.manual_seed(seed)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            attn_implementation=attention,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
        return LlamaForCausalLM(config)
    config = GPT2Config(
        vocab_size=vocab_size,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        attn_implementation=attention,
        bos_token_id=0,
        eos_token_id=1,
    )
    return GPT2LMHeadModel(config)
