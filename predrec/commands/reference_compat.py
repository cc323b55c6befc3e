"""LLM-JEPA as the published code did it, faults included, so that its numbers can be reproduced and told apart."""

from ..configuration.llm_arguments import LLMDataArguments, LLMModelArguments
from ..trainers.llm_jepa_args import LLMJepaArguments

OFFSETS = (("deepseek", -1), ("llama", -2), ("gemma", -2), ("openelm", -4), ("olmo", -1), ("qwen", -3))
"""From the end of a view to what was read there, by what the model's name holds; -2 for others."""


def published_readout(name: str) -> int:
    """Returns the constant offset of the published code for a model of this name."""
    return next((offset for family, offset in OFFSETS if family in name.lower()), -2)


def as_published(data: LLMDataArguments, model: LLMModelArguments, training: LLMJepaArguments) -> None:
    """Sets, in place, what the published code does.

    Labels on all tokens but those equal to padding, a second BOS, readouts at a constant distance from the template's
    end, weights and optimizer in bfloat16, sums instead of means over accumulated batches, rows of full length, one
    view to a row.
    """
    data.label_scope, data.mask_eos_like_pad, data.double_bos = "all", True, True
    data.readout = str(published_readout(model.model_name_or_path or str(model.model_type)))
    data.pad_to_max_length, data.layout = True, "rows"
    model.param_dtype = "bfloat16"
    training.sum_micro_batches = True
