"""The predictor: from the visible context and the places of the targets to the targets' latents."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import UNPADDED
from .configuration_predrec import PredRecConfig
from .encoders import attention_masks, segment_arguments
from .layout import Layout
from .modeling_predrec import (
    PredRecLayer,
    PredRecMLP,
    PredRecPreTrainedModel,
    apply_rotary,
    eager_attention_forward,
    rotary_angles,
    sinusoidal_positions,
)


class CrossAttention(nn.Module):
    """Attention from target positions to the context, through the transformers attention interface."""

    is_causal = False

    def __init__(self, config: PredRecConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        targets: Tensor,
        context: Tensor,
        attention_mask: Tensor | None = None,
        rotary: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        **kwargs,
    ) -> Tensor:
        batch_size, num_targets, hidden_size = targets.shape
        heads = hidden_size // self.head_dim, self.head_dim
        query = self.query(targets).view(batch_size, num_targets, *heads).transpose(1, 2)
        key_value = self.key_value(context).view(batch_size, context.shape[1], 2, *heads).transpose(1, 3)
        key, value = key_value.unbind(dim=2)
        if rotary is not None:
            query, key = apply_rotary(query, *rotary[0]), apply_rotary(key, *rotary[1])
        kernel = self.config._attn_implementation
        if attention_mask is not None and kernel not in ("eager", UNPADDED):
            kernel = "sdpa"  # Others take a mask in forms of their own, as long as the queries.
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, eager_attention_forward)
        output, _ = attention(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.head_dim**-0.5, **kwargs
        )
        return self.proj(output.reshape(batch_size, num_targets, hidden_size))


class CrossLayer(GradientCheckpointingLayer):
    """Pre-LayerNorm block in which targets look at the context, and at nothing else (CrossMAE)."""

    def __init__(self, config: PredRecConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = CrossAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PredRecMLP(config)

    def forward(self, targets: Tensor, context: Tensor, **kwargs) -> Tensor:
        targets = targets + self.attn(self.norm1(targets), context, **kwargs)
        return targets + self.mlp(self.norm2(targets))


class PredRecPredictor(PredRecPreTrainedModel):
    """A transformer that turns the context's states and the places of the targets into the targets' latents.

    With `attention="joint"` (the paper), each target block is predicted in a sequence of its own, context then block,
    so blocks never see each other, and every layer transforms the context again for every block. With
    `attention="cross"`, targets attend to the context, which no layer transforms, and not to one another: far cheaper.

    Args:
        config ([`PredRecConfig`]): The blocks, from [`PredRecPreTrainingConfig.predictor_config`].
        encoder_hidden_size (`int`): Width of the encoder, on the way in and out.
        attention (`"joint"` or `"cross"`, defaults to `"joint"`): See above.

    Reference:
        Assran et al., 2023, https://arxiv.org/abs/2301.08243 (joint); Fu et al., 2024, https://arxiv.org/abs/2401.14391
        (cross)
    """

    def __init__(self, config: PredRecConfig, encoder_hidden_size: int, attention: str = "joint"):
        super().__init__(config)
        self.attention = attention
        self.embed = nn.Linear(encoder_hidden_size, config.hidden_size)
        self.mask_token = nn.Parameter(torch.zeros(config.hidden_size))
        layer = PredRecLayer if attention == "joint" else CrossLayer
        self.layers = nn.ModuleList([layer(config) for _ in range(config.num_hidden_layers)])
        self.context_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if attention == "cross" else None
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.proj = nn.Linear(config.hidden_size, encoder_hidden_size)
        sinusoidal = config.position_embedding_type == "sinusoidal"
        table = sinusoidal_positions(config.max_position_embeddings, config.hidden_size) if sinusoidal else None
        self.register_buffer("position_table", table, persistent=False)
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            init.trunc_normal_(self.mask_token, std=self.config.initializer_range)
            if self.position_table is not None:
                init.copy_(self.position_table, sinusoidal_positions(*self.position_table.shape))

    def forward(
        self,
        context_states: Tensor,
        context_indices: Tensor,
        context_mask: Tensor,
        target_indices: Tensor,
        target_mask: Tensor,
        layout: Layout | None = None,
    ) -> Tensor:
        """Predicts the latents at the target positions.

        Args:
            context_states (`torch.FloatTensor` of shape `(num_contexts, context_length, encoder_hidden_size)`):
                The encoder's output on the visible context; `(num_context, encoder_hidden_size)` with a layout.
            context_indices, context_mask (`(num_contexts, context_length)`, long and bool): Positions; which are real.
            target_indices, target_mask (`(num_contexts, num_blocks, block_length)`, long and bool): Those of targets.
            layout ([`Layout`], *optional*): Of the batch; nothing is computed on padding then.

        Returns:
            `torch.FloatTensor` of shape `(num_contexts, num_blocks, block_length, encoder_hidden_size)`, or
            `(num_targets, encoder_hidden_size)` with a layout.
        """
        shape = target_indices.shape
        if layout is not None:
            context_indices = context_indices.flatten()[layout.context]
            target_indices = target_indices.flatten()[layout.targets]
            shape = target_indices.shape
        context = self._placed(self.embed(context_states), context_indices)
        mask_tokens = self.mask_token.to(context.dtype).expand(*target_indices.shape, -1)
        targets = self._placed(mask_tokens, target_indices)
        if self.attention == "cross":
            states = self._cross(context, context_indices, context_mask, targets, target_indices, layout)
        elif layout is not None:
            states = self._joint_segments(context, context_indices, targets, target_indices, layout)
        else:
            states = self._joint(context, context_indices, context_mask, targets, target_indices, target_mask)
        return self.proj(self.norm(states)).view(*shape, self.proj.out_features)

    def _placed(self, states: Tensor, positions: Tensor) -> Tensor:
        """Adds the position table, unless positions are rotary."""
        if self.position_table is None:
            return states
        return states + self.position_table[positions].to(states.dtype)

    def _rotary(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.config.position_embedding_type != "rotary":
            return None
        return rotary_angles(
            positions, self.config.hidden_size // self.config.num_attention_heads, self.config.rotary_base
        )

    def _joint(
        self,
        context: Tensor,
        context_indices: Tensor,
        context_mask: Tensor,
        targets: Tensor,
        target_indices: Tensor,
        target_mask: Tensor,
    ) -> Tensor:
        def beside(of_context: Tensor, of_targets: Tensor) -> Tensor:
            """Joins `(num_contexts, context_length, ...)` with every block: `(num_contexts * num_blocks, ...)`."""
            repeated = of_context[:, None].expand(-1, target_indices.shape[1], *of_context.shape[1:])
            return torch.cat([repeated, of_targets], dim=2).flatten(0, 1)

        states = beside(context, targets)
        mask = attention_masks(self.config, beside(context_mask, target_mask), states.dtype)
        attention_mask = create_bidirectional_mask(config=self.config, inputs_embeds=states, attention_mask=mask)
        rotary = self._rotary(beside(context_indices, target_indices))
        for layer in self.layers:
            states = layer(states, attention_mask=attention_mask, rotary=rotary)
        return states[:, context_indices.shape[1] :]

    def _joint_segments(
        self, context: Tensor, context_indices: Tensor, targets: Tensor, target_indices: Tensor, layout: Layout
    ) -> Tensor:
        states = torch.cat([context, targets])[layout.paired][None]
        rotary = self._rotary(torch.cat([context_indices, target_indices])[layout.paired][None])
        everywhere = segment_arguments(self.config, layout.paired_segments)
        for layer in self.layers[:-1]:
            states = layer(states, rotary=rotary, **everywhere)
        # Of the last layer, only what becomes of the targets is of use.
        at_targets = segment_arguments(self.config, layout.predicted_segments, layout.paired_segments)
        return self.layers[-1](states, rotary=rotary, queries=layout.predicted, **at_targets)

    def _cross(
        self,
        context: Tensor,
        context_indices: Tensor,
        context_mask: Tensor,
        targets: Tensor,
        target_indices: Tensor,
        layout: Layout | None,
    ) -> Tensor:
        context = self.context_norm(context)
        if layout is not None:
            context, context_indices = context[None], context_indices[None]
            targets, target_indices = targets[None], target_indices[None]
            options = segment_arguments(self.config, layout.target_segments, layout.context_segments)
            options["attention_mask"] = None
        else:
            targets, target_indices = targets.flatten(1, 2), target_indices.flatten(1)
            mask = attention_masks(self.config, context_mask, context.dtype, num_queries=targets.shape[1])
            if mask.ndim == 2:  # Of a kernel that would take it for the mask of the targets.
                mask = mask.bool()[:, None, None].expand(-1, 1, targets.shape[1], -1)
            options = {"attention_mask": mask}
        rotary = None
        if self.config.position_embedding_type == "rotary":
            rotary = self._rotary(target_indices), self._rotary(context_indices)
        for layer in self.layers:
            targets = layer(targets, context, rotary=rotary, **options)
        return targets
