"""The model card of a language model: how it was trained, what it answered, how to ask it."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from .card_parts import block, compose, last_values, measured, recipe_block, table, versions
from .curves import plot_training_curves
from .hardware import device_name
from .strategies import precision

METHODS = {
    "ntp": "next tokens alone",
    "llm_jepa": "next tokens, and LLM-JEPA (arXiv 2509.14252): one view of a record predicts the state of the other",
    "tube": "next tokens, and straight paths of states (semantic tube prediction, arXiv 2602.22617)",
}

LOSSES = (
    ("eval_ntp_loss", "held-out loss of next tokens (nats)"),
    ("eval_jepa_loss", "held-out loss between views"),
    ("eval_matched_cosine", "cosine of a record's views"),
    ("eval_mismatched_cosine", "cosine of views of different records"),
    ("eval_effective_rank", "effective rank of the views"),
    ("eval_retrieval", "share of views whose nearest neighbour is the record's other view"),
)

CITATION = """\
@article{llmjepa,
  title = {LLM-JEPA: Large Language Models Meet Joint Embedding Predictive Architectures},
  year = {2025},
  url = {https://arxiv.org/abs/2509.14252}
}
"""

WHOLE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

directory = "{name}"  # the path of this folder
model = AutoModelForCausalLM.from_pretrained(directory)
tokenizer = AutoTokenizer.from_pretrained(directory)
"""

ADAPTED = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

directory = "{name}"  # the path of this folder
tokenizer = AutoTokenizer.from_pretrained(directory)
model = AutoPeftModelForCausalLM.from_pretrained(directory)
"""

ASK = """
prompt = {prompt!r}  # as in training
inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def render_language_card(
    name: str,
    method: str,
    prompt: str | None,
    has_adapters: bool,
    recipe: dict[str, Any],
    history: list[dict[str, Any]],
    facts: dict[str, str],
    answers: dict[str, float],
) -> str:
    """Renders the card.

    Args:
        name (`str`): Title; also what the example loads.
        method (`str`): `"ntp"`, `"llm_jepa"` or `"tube"`.
        prompt (`str`, *optional*): A prompt as in training, with everything around the user's words.
        has_adapters (`bool`): Whether the folder holds adapters instead of whole weights.
        recipe (`dict`): Resolved recipe.
        history (`list`): Log history of the Trainer.
        facts (`dict`): Rows for the table of the run.
        answers (`dict`): Share of test records by verdict.
    """
    data = ModelCardData(
        library_name="peft" if has_adapters else "transformers",
        pipeline_tag="text-generation",
        tags=["predrec", *([] if method == "ntp" else ["jepa", method.replace("_", "-")])],
    )
    found = measured(last_values(history), LOSSES)
    found += [
        (f"test records: {verdict.replace('_', ' ')}", f"{100 * share:.2f} %") for verdict, share in answers.items()
    ]
    run = {"trained on": METHODS[method], **facts, "versions": versions()}
    ask = ASK.format(prompt=prompt) if prompt else ""
    return compose(
        data,
        name,
        f"A causal language model, trained with predrec on {METHODS[method]}.\n",
        "## Load it\n",
        block("python", (ADAPTED if has_adapters else WHOLE).format(name=name) + ask),
        "## Training\n",
        table(run.items()),
        "## What was measured\n",
        table(found, "| measure | value |") if found else "Nothing.\n",
        "One run with one seed: whether one method is better than another takes several.\n",
        "![Training curves](training_curves.png)\n",
        "## Limits\n",
        "It answers prompts of the form above, about the data above; what is not measured above is not known.\n",
        "## Licence\n",
        "None was given; that of the model it began with, and of the data, applies.\n",
        *(["## Citation\n", block("bibtex", CITATION)] if method == "llm_jepa" else []),
        *(["## Recipe\n", recipe_block(recipe)] if recipe else []),
    )


def write_language_card(trainer: Any) -> None:
    """Writes `README.md` into the output directory of an [`LLMJepaTrainer`]."""
    args, state = trainer.args, trainer.state
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    values = last_values(state.log_history)
    facts = dict(trainer.card_facts) | {
        "steps": f"{state.global_step} updates of {rows} records",
        "operations": f"{trainer.spending.until(state.global_step):.3g}",
        "precision": precision(trainer.accelerator, trainer.model),
        "compute": f"{args.world_size} x {device_name(args.device)}; {values.get('train_runtime', 0):,.0f} s",
    }
    text = render_language_card(
        Path(args.output_dir).name,
        args.method,
        trainer.example_prompt,
        hasattr(trainer.model.causal_lm, "peft_config"),
        trainer.recipe or {},
        state.log_history,
        facts,
        trainer.answer_shares,
    )
    plot_training_curves(state.log_history, Path(args.output_dir) / "training_curves.png")
    ModelCard(text).save(Path(args.output_dir) / "README.md")
