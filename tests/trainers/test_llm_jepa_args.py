"""The arguments of LLM-JEPA: every one of the objective's reaches it."""

from dataclasses import asdict

import pytest
import torch

from predrec.commands import finetune_llm_jepa
from predrec.configuration import parse_recipe
from predrec.modeling.modeling_llm_jepa import LLMJepaObjective
from predrec.trainers import PredRecTrainingArguments
from predrec.trainers.llm_jepa_args import LLMJepaArguments

CHANGED = {
    "jepa_lambda": 0.3,
    "gamma": 0.7,
    "distance": "infonce",
    "temperature": 0.2,
    "symmetric_infonce": True,
    "target_grad": "stop",
    "jepa_layer": -2,
}
NAMES = {"symmetric_infonce": "symmetric", "jepa_layer": "layer"}
"""Arguments that the objective calls otherwise."""


def test_every_argument_reaches_the_objective(tmp_path):
    found = asdict(LLMJepaArguments(output_dir=str(tmp_path), **CHANGED).objective())
    assert found == {NAMES.get(name, name): value for name, value in CHANGED.items()} | {
        "method": "llm_jepa",
        "separation": None,
    }


def test_no_argument_that_is_needed_is_called_unused(tmp_path):
    used = CHANGED | {"target_grad": "ema", "ema_decay": 0.9, "jepa_lambda_schedule": "warmup", "lambda_warmup": 0.3}
    assert LLMJepaArguments(output_dir=str(tmp_path), **used).unused() == {}
    assert LLMJepaArguments(output_dir=str(tmp_path)).unused() == {}


@pytest.mark.parametrize(
    ("method", "name", "value"), [("ntp", "jepa_lambda", 4.0), ("tube", "jepa_layer", 1), ("tube", "distance", "l2")]
)
def test_what_a_method_never_looks_at_is_called_unused(tmp_path, method, name, value):
    output_dir = str(tmp_path)
    assert LLMJepaArguments(output_dir=output_dir, method=method).unused() == {}
    assert list(LLMJepaArguments(output_dir=output_dir, method=method, **{name: value}).unused()) == [name]


def test_the_objective_of_the_defaults_is_its_own_default(tmp_path):
    assert LLMJepaArguments(output_dir=str(tmp_path)).objective() == LLMJepaObjective()


def test_the_method_reaches_the_objective_with_its_lambda(tmp_path):
    for method, weight in (("ntp", 0.0), ("tube", 0.02)):
        objective = LLMJepaArguments(output_dir=str(tmp_path), method=method).objective()
        assert (objective.method, objective.jepa_lambda) == (method, weight)


@pytest.mark.parametrize("kind", [PredRecTrainingArguments, LLMJepaArguments])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, True) for name in ("load_best_model_at_end", "do_predict", "batch_eval_metrics", "hub_always_push")),
        *(("include_for_metrics", ["loss"]), ("eval_accumulation_steps", 2), ("label_names", ["labels"])),
        *(("average_tokens_across_devices", False), ("label_smoothing_factor", 0.1), ("neftune_noise_alpha", 5.0)),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path, kind, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        kind(output_dir=str(tmp_path), save_strategy="steps", eval_strategy="steps", **{name: value})


@pytest.mark.parametrize("method", ["ntp", "tube", "llm_jepa"])
def test_a_method_leaves_out_of_a_recipe_what_has_no_meaning_with_it(tmp_path, method):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "method: llm_jepa\njepa_lambda: 0.5\nnum_predictor_tokens: 2\ntarget_grad: ema\nema_decay: 0.9\n"
        "distance: infonce\ntemperature: 0.2\njepa_lambda_schedule: warmup\nlambda_warmup: 0.2\ngamma: 0.5\n"
    )
    model = {
        "model_type": "llama",
        "init": "random",
        "tokenizer_name": "a",
        "train_file": "a.jsonl",
        "output_dir": "b",
    }
    words = [str(recipe), "--method", method, *(f"--{name}={value}" for name, value in model.items())]
    (_, _, training, _), resolved = parse_recipe(words, finetune_llm_jepa.ARGUMENTS, "finetune_llm_jepa")
    assert training.unused() == {}
    second = {"jepa_lambda", "jepa_lambda_schedule", "lambda_warmup"}
    jepa = {"num_predictor_tokens", "target_grad", "ema_decay"}
    views = {"distance", "temperature"}
    kept = {"ntp": views, "tube": second, "llm_jepa": second | jepa | views}[method]
    assert resolved.keys() - {"method", *model} == kept | {"gamma"}


@pytest.mark.parametrize("kind", [PredRecTrainingArguments, LLMJepaArguments])
def test_a_compiler_that_the_launcher_chose_counts(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    assert not kind(output_dir=str(tmp_path)).torch_compile
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    arguments = kind(output_dir=str(tmp_path))
    assert (arguments.torch_compile, arguments.torch_compile_backend) == (True, "eager")
    inductor = kind(output_dir=str(tmp_path), torch_compile_backend="inductor")
    assert inductor.torch_compile_backend == "inductor"


@pytest.mark.parametrize(("tf32", "precision"), [(None, "highest"), (False, "highest"), (True, "high")])
def test_compiled_matrix_products_in_float32_are_exact_unless_tf32_is_asked_for(
    tmp_path, monkeypatch, tf32, precision
):
    found = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", found.append)
    monkeypatch.setattr("transformers.training_args.is_torch_tf32_available", lambda: True)
    monkeypatch.setattr("transformers.training_args.enable_tf32", lambda enable: None)
    monkeypatch.setattr(PredRecTrainingArguments, "device", torch.device("cuda"))
    PredRecTrainingArguments(output_dir=str(tmp_path), torch_compile=True, tf32=tf32, bf16=True)
    assert found == [precision]


@pytest.mark.parametrize(("metric", "greater"), [("eval_mlm_accuracy", True), ("eval_jepa_loss", False)])
def test_better_is_what_the_metric_says(tmp_path, metric, greater):
    arguments = PredRecTrainingArguments(output_dir=str(tmp_path), metric_for_best_model=metric)
    assert arguments.greater_is_better is greater


def test_finished_models_are_not_pushed_by_training(tmp_path):
    with pytest.raises(ValueError, match=r"`push_to_hub` is for encoders.*predrec push"):
        LLMJepaArguments(output_dir=str(tmp_path), push_to_hub=True)
