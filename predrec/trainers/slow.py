"""What makes a run slower than it need be: said when it begins."""

from .hardware import has_fast_bfloat16
from .trainer import PredRecTrainer

RECORDING = ("reduce-overhead", "max-autotune")
"""Modes of `torch_compile` that record CUDA graphs."""


def slow_choices(trainer: PredRecTrainer, isolates_documents: bool) -> list[str]:
    """Finds settings that cost speed on this machine, and says what to do instead.

    Args:
        trainer ([`PredRecTrainer`]): Before it trains.
        isolates_documents (`bool`): Whether documents in a packed row are kept apart.
    """
    device, found = trainer.args.device, []
    if isolates_documents and not trainer.data_collator.unpad:
        found.append(
            "`isolate_documents` is slow here: documents are padded, since this encoder, its attention, or code "
            "compiled for a CPU cannot read them end to end."
        )
    dropout = getattr(trainer.model.encoder.config, "attention_probs_dropout_prob", 0)
    if dropout and device.type == "cuda" and trainer.model.takes_layout:
        found.append(
            f"`attention_probs_dropout_prob` is {dropout}: the fast attention on GPUs drops nothing out, so another "
            "one is used, which computes on padding. With 0 training is faster."
        )
    mode = trainer.args.torch_compile_mode
    if device.type == "cuda" and mode in RECORDING and trainer.data_collator.unpad:
        found.append(
            f"`torch_compile_mode={mode}` records a CUDA graph for every number of tokens, which here differs from "
            "batch to batch: use the default mode, or max-autotune-no-cudagraphs."
        )
    if trainer.args.bf16 and device.type == "cpu" and not has_fast_bfloat16(device):
        found.append(
            "`bf16` is probably slow here: this processor has no AVX-512 instructions for it. Try `--bf16 false`."
        )
    return found
