"""The predictor: from the visible context and the places of the targets to the targets' latents."""

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask

from .configuration_predrec import PredRecConfig
from .encoders import attention_masks, segment_arguments
from .layout import Layout
from .modeling_predrec import PredRecLayer, PredRecPreTrainedModel, rotary_angles, sinusoidal_positions


class PredRecPredictor(PredRecPreTrainedModel):
    """A narrow transformer that reads the context's states beside one mask token per target position.

    Each target block is predicted in a sequence of its own, context then block, so blocks never see each other.

    Args:
        config ([`PredRecConfig`]): The blocks, from [`PredRecPreTrainingConfig.predictor_config`].
        encoder_hidden_size (`int`): Width of the encoder, on the way in and out.
    """

    def __init__(self, config: PredRecConfig, encoder_hidden_size: int):
        super().__init__(config)
        self.embed = nn.Linear(encoder_hidden_size, config.hidden_size)
        self.mask_token = nn.Parameter(torch.zeros(config.hidden_size))
        self.layers = nn.ModuleList([PredRecLayer(config) for _ in range(config.num_hidden_layers)])
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
            context_states (`torch.FloatTensor` of shape `(batch_size, context_length, encoder_hidden_size)`):
                The encoder's output on the visible context; `(num_context, encoder_hidden_size)` with a layout.
            context_indices, context_mask (`(batch_size, context_length)`, long and bool): Positions; real or padding.
            target_indices, target_mask (`(batch_size, num_blocks, block_length)`, long and bool): Those of targets.
            layout ([`Layout`], *optional*): Of the batch; nothing is computed on padding then.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_blocks, block_length, encoder_hidden_size)`, or
            `(num_targets, encoder_hidden_size)` with a layout.
        """
        if layout is not None:
            context_indices = context_indices.flatten()[layout.context]
            target_indices = target_indices.flatten()[layout.targets]
        context = self._placed(self.embed(context_states), context_indices)
        mask_tokens = self.mask_token.to(context.dtype).expand(*target_indices.shape, -1)
        targets = self._placed(mask_tokens, target_indices)
        if layout is not None:
            joined = torch.cat([context, targets])[layout.paired]
            positions = torch.cat([context_indices, target_indices])[layout.paired]
            states = self._blocks(
                joined[None], positions[None], **segment_arguments(self.config, layout.paired_segments)
            )
            return self.proj(self.norm(states[0, layout.predicted]))

        def beside(of_context: Tensor, of_targets: Tensor) -> Tensor:
            """Joins `(batch_size, context_length, ...)` with every block: `(batch_size * num_blocks, ...)`."""
            repeated = of_context[:, None].expand(-1, target_indices.shape[1], *of_context.shape[1:])
            return torch.cat([repeated, of_targets], dim=2).flatten(0, 1)

        joined = beside(context, targets)
        mask = attention_masks(self.config, beside(context_mask, target_mask), joined.dtype)
        attention_mask = create_bidirectional_mask(config=self.config, inputs_embeds=joined, attention_mask=mask)
        states = self._blocks(joined, beside(context_indices, target_indices), attention_mask=attention_mask)
        predicted = self.proj(self.norm(states[:, context_indices.shape[1] :]))
        return predicted.view(*target_indices.shape, -1)

    def _placed(self, states: Tensor, positions: Tensor) -> Tensor:
        """Adds the position table, unless positions are rotary."""
        if self.position_table is None:
            return states
        return states + self.position_table[positions].to(states.dtype)

    def _blocks(self, hidden_states: Tensor, positions: Tensor, **kwargs) -> Tensor:
        rotary = None
        if self.config.position_embedding_type == "rotary":
            head_dim = self.config.hidden_size // self.config.num_attention_heads
            rotary = rotary_angles(positions, head_dim, self.config.rotary_base)
        for layer in self.layers:
            hidden_states = layer(hidden_states, rotary=rotary, **kwargs)
        return hidden_states
