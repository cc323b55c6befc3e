"""The model card of a run: what it is, what it was trained on, what was measured, how to load it."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .card_examples import loading_examples
from .card_parts import block, compose, last_values, measured, recipe_block, table, versions
from .curves import plot_training_curves
from .hardware import device_name
from .strategies import precision

OBJECTIVES = {
    "hybrid": "JEPA latent prediction together with masked-token reconstruction (predict and reconstruct)",
    "mlm": "masked-token reconstruction alone",
    "jepa": "JEPA latent prediction alone",
}

OF_CROPS = "; latents of short crops of a text, from these crops themselves, in place of hidden blocks"

LOSSES = (
    ("eval_mlm_loss", "held-out masked-LM loss (nats)"),
    ("eval_mlm_accuracy", "held-out masked-token accuracy"),
    ("eval_jepa_loss", "held-out JEPA loss"),
    ("eval_jepa_margin", "margin of the JEPA loss over the best trivial predictor"),
    ("eval_trivial_loss_mean", "JEPA loss of predicting the mean target"),
    ("eval_trivial_loss_position", "JEPA loss of predicting another position's target"),
    ("eval_trivial_loss_text", "JEPA loss of predicting another text's target"),
    ("loss_lambda", "weight of the JEPA loss at the end"),
    ("eval_uniformity", "uniformity of mean-pooled texts (lower means more spread)"),
    ("eval_effective_rank", "effective rank of mean-pooled texts"),
    ("eval_text_spread", "spread of token states between texts"),
    ("eval_token_spread", "spread of token states within a text"),
    ("eval_target_spread", "spread of targets between texts"),
    ("eval_target_token_spread", "spread of targets within a text"),
    ("eval_matched_cosine", "cosine of a prediction and its target"),
    ("eval_mismatched_cosine", "cosine of a prediction and another text's target"),
)

CITATION = """\
@article{predictandreconstruct,
  title = {Predict and Reconstruct: Joint Objectives for Self-Supervised Language Representation Learning},
  author = {Boukhari},
  year = {2026},
  url = {https://arxiv.org/abs/2606.05173}
}
"""


def render_model_card(
    name: str,
    encoder_config: Any,
    objective: str,
    recipe: dict[str, Any],
    history: list[dict[str, Any]],
    facts: dict[str, str],
) -> str:
    """Renders the card.

    Args:
        name (`str`): Title; also what the loading examples load.
        encoder_config (`PreTrainedConfig`): Of the trained encoder.
        objective (`str`): What was trained.
        recipe (`dict`): Resolved recipe.
        history (`list`): Log history of the Trainer.
        facts (`dict`): Further rows for the table of the run, such as data and steps.
    """
    before = recipe.get("init_from")
    start = f", starting from `{before}`" if before else ""
    custom = encoder_config.model_type == "predrec"
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=["predrec", "masked-lm", objective, *(["jepa"] if objective != "mlm" else [])],
        base_model=None if before is None or Path(before).exists() else before,
    )
    crops = objective != "mlm" and recipe.get("jepa_view") == "crops"
    losses = measured(last_values(history), LOSSES)
    untrained = {"bert": "pooler", "roberta": "pooler"}.get(encoder_config.model_type)
    notes = f"The `{untrained}` that `AutoModel` adds is untrained: pool the token states.\n" if untrained else ""
    run = {
        "architecture": f"{encoder_config.model_type}, {encoder_config.num_hidden_layers} layers, "
        f"hidden size {encoder_config.hidden_size}, vocabulary {encoder_config.vocab_size}",
        "objective": OBJECTIVES[objective] + (OF_CROPS if crops else ""),
        **facts,
        "versions": versions(),
    }
    return compose(
        data,
        name,
        f"A text encoder pre-trained with {OBJECTIVES[objective]}{start}, by "
        "predrec, an implementation of [*Predict and Reconstruct*](https://arxiv.org/abs/2606.05173).\n",
        "## Load it\n",
        loading_examples(name, custom),
        notes,
        "## Training\n",
        table(run.items()),
        "## What was measured\n",
        "At the end of training, on held-out text:\n\n" + table(losses, "| measure | value |")
        if losses
        else "Nothing: the run was not evaluated.\n",
        "The JEPA loss means something only if it is below that of the trivial predictors, which know nothing of the "
        "text.\n"
        if objective != "mlm"
        else "",
        "![Training curves](training_curves.png)\n",
        "## Limits\n",
        "The encoder knows no more than the text that it was trained on, whose biases it shares. It was "
        "not fine-tuned, and what is not measured above is not known.\n",
        "## Licence\n",
        "None was given.\n",
        "## Citation\n",
        "The method is that of\n\n" + block("bibtex", CITATION),
        *(["## Recipe\n", recipe_block(recipe)] if recipe else []),
    )


def _compute(args: Any, values: dict[str, float]) -> str:
    parts = [f"{args.world_size} x {device_name(args.device)}"]
    if "train_runtime" in values:
        parts.append(f"{values['train_runtime']:,.0f} s, evaluation included")
    if "tokens_per_second" in values:
        parts.append(f"{values['tokens_per_second']:,.0f} tokens/s at the end")
    return "; ".join(parts)


def write_model_card(trainer: Any) -> None:
    """Writes `README.md` into the output directory of a [`PredRecTrainer`]."""
    args, state, model = trainer.args, trainer.state, trainer.model
    facts = dict(trainer.card_facts)
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    facts["steps"] = f"{state.global_step} updates of {rows} rows"
    if model.active_objective != model.config.objective:
        facts["objective"] = f"{OBJECTIVES[model.config.objective]}; after a collapse, {OBJECTIVES['mlm']}"
    facts["precision"] = precision(trainer.accelerator, model)
    facts["compute"] = _compute(args, last_values(state.log_history))
    text = render_model_card(
        Path(args.output_dir).name,
        model.config.encoder_config,
        model.config.objective,
        trainer.recipe or {},
        state.log_history,
        facts,
    )
    plot_training_curves(state.log_history, Path(args.output_dir) / "training_curves.png")
    ModelCard(text).save(Path(args.output_dir) / "README.md")
