# Copyright 2026 The predrec authors. Licensed under the Apache License, Version 2.0.
"""Configuration of the predrec encoder. This file travels with a checkpoint, so it imports only transformers."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN


@strict
class PredRecConfig(PreTrainedConfig):
    """Configuration of a [`PredRecModel`]; the defaults are the encoder of "Predict and Reconstruct".

    The fields have BERT's names. The paper's encoder is a bidirectional pre-LayerNorm transformer with fixed
    sinusoidal positions and an output projection that is not tied to the embeddings.

    Args:
        vocab_size (`int`, defaults to 30522): Number of tokens.
        hidden_size (`int`, defaults to 512): Width of the residual stream.
        num_hidden_layers (`int`, defaults to 6): Number of transformer blocks.
        num_attention_heads (`int`, defaults to 8): Heads per block; must divide `hidden_size`.
        intermediate_size (`int`, defaults to 2048): Width of the feed-forward layer.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the feed-forward layer and of the head.
        hidden_dropout_prob (`float`, defaults to 0.0): Dropout after the embeddings and after each sub-layer.
        attention_probs_dropout_prob (`float`, defaults to 0.0): Dropout on attention weights.
        classifier_dropout (`float`, defaults to 0.1): Dropout before the layer of a classifier.
        max_position_embeddings (`int`, defaults to 512): Longest sequence.
        position_embedding_type (`"sinusoidal"` or `"rotary"`, defaults to `"sinusoidal"`):
            Sinusoidal adds a fixed table to the token embeddings (the paper). Rotary turns queries and keys instead
            and leaves the embeddings alone.
        rotary_base (`float`, defaults to 10000.0): Base of the rotary wavelengths; used by `"rotary"` only.
        scale_embeddings (`bool`, defaults to `False`):
            Multiply token embeddings by `sqrt(hidden_size)` (Vaswani et al., 2017). Without it, the sinusoidal table
            (root mean square 0.71) drowns embeddings initialised at `initializer_range`.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the weights at initialisation.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of the encoder's LayerNorms.
        head_layer_norm_eps (`float`, defaults to 1e-5): Epsilon of the LayerNorm in the masked-LM head.
        tie_word_embeddings (`bool`, defaults to `False`): Share the output projection with the token embeddings.
        attend_to_padding (`bool`, defaults to `False`):
            Ignore every attention mask, as the paper's code did: for checkpoints that were trained that way.

    Raises:
        ValueError: If a size is not positive, heads do not divide the width, or rotary heads have an odd width.

    Reference:
        Boukhari, 2026, https://arxiv.org/abs/2606.05173
    """

    model_type = "predrec"

    vocab_size: int = 30522
    hidden_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    classifier_dropout: float | int = 0.1
    max_position_embeddings: int = 512
    position_embedding_type: Literal["sinusoidal", "rotary"] = "sinusoidal"
    rotary_base: float | int = 10000.0
    scale_embeddings: bool = False
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-6
    head_layer_norm_eps: float = 1e-5
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False
    attend_to_padding: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        for name in (
            "vocab_size",
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be at least 1.")
        if self.num_hidden_layers < 0:
            raise ValueError(f"`num_hidden_layers` is {self.num_hidden_layers}; it must not be negative.")
        for name in ("initializer_range", "rotary_base", "layer_norm_eps", "head_layer_norm_eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be positive.")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must lie in [0, 1).")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"`hidden_act` is {self.hidden_act!r}; it must be one of {', '.join(sorted(ACT2FN))}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) is not a multiple of `num_attention_heads` "
                f"({self.num_attention_heads}): change one of them."
            )
        if self.position_embedding_type == "rotary" and (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError(
                f"rotary positions need an even head width, but `hidden_size` / `num_attention_heads` is "
                f"{self.hidden_size // self.num_attention_heads}."
            )
        if self.position_embedding_type == "sinusoidal" and self.hidden_size % 2:
            raise ValueError(f"sinusoidal positions need an even `hidden_size`, not {self.hidden_size}.")


__all__ = ["PredRecConfig"]
