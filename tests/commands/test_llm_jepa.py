"""Training, comparing and evaluating language models through the commands."""

import ast
import json
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from predrec.commands import evaluate_llm_jepa
from predrec.commands.evaluate_llm_jepa import main as evaluate
from predrec.commands.finetune_llm_jepa import PLACEHOLDER
from predrec.commands.finetune_llm_jepa import main as finetune
from predrec.commands.report import main as report
from predrec.configuration.recipes import read_recipe
from predrec.eval.pair_geometry import measure_pairs
from predrec.eval.results import read_results

from .. import causal
from ..eval.answers.planted import LIBRARY
from ..processes import ROOT

MODEL = json.dumps(
    {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 4}
)
TINY = [
    *("--init", "random", "--model_type", "llama", "--model_config", MODEL, "--train_tokenizer", "true"),
    *("--vocab_size", "330", "--max_seq_length", "128", "--generated_pairs", "60", "--generated_test_pairs", "20"),
    *("--max_steps", "3", "--per_device_train_batch_size", "8", "--eval_strategy", "no", "--save_strategy", "no"),
    *("--task", "synth", "--max_new_tokens", "8", "--num_threads", "1", "--disable_tqdm", "true"),
    *("--report_to", "none", "--seed", "5"),
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Two methods with two seeds."""
    folder = tmp_path_factory.mktemp("compared")
    words = [*TINY, "--compare", "ntp", "llm_jepa", "--seeds", "1", "2", "--output_dir", str(folder)]
    assert finetune(words) == 0
    return folder


def test_every_method_and_seed_leaves_its_model_answers_and_recipe(compared):
    for name in ("ntp-1", "ntp-2", "llm_jepa-1", "llm_jepa-2"):
        files = {path.name for path in (compared / name).iterdir()}
        assert {"model.safetensors", "tokenizer.json", "answers.jsonl", "recipe.yaml", "training_curves.png"} <= files
        rows = [json.loads(line) for line in (compared / name / "answers.jsonl").read_text().splitlines()]
        assert len(rows) == 20 and set(rows[0]) == {
            *("prompt", "gold", "answer", "exact_match", "startswith", "regex_equivalence")
        }
        recipe = read_recipe(compared / name / "recipe.yaml")
        assert [recipe["method"], recipe["seed"]] == name.split("-")


def run_example(folder) -> str:
    """Runs the code of a card as it stands, beside its folder; returns what it prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_card_says_what_the_model_is_and_its_example_runs(compared):
    card = (compared / "llm_jepa-1" / "README.md").read_text()
    assert (
        "LLM-JEPA (arXiv 2509.14252)" in card and "2509.14252}" in card and "\npipeline_tag: text-generation" in card
    )
    assert "| test records: exact match |" in card and "| data | " in card
    assert "arXiv" not in (compared / "ntp-1" / "README.md").read_text()
    run_example(compared / "llm_jepa-1")


def test_prompt_of_the_card_is_as_in_training(compared):
    """The ids that the example makes are those of the evaluation."""
    folder = compared / "llm_jepa-1"
    prompt = ast.literal_eval(re.search(r"^prompt = (.*)  #", (folder / "README.md").read_text(), re.MULTILINE)[1])
    row = json.loads((folder / "answers.jsonl").read_text().splitlines()[0])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before, after = prompt.split(PLACEHOLDER)
    assert row["prompt"].startswith(before) and row["prompt"].endswith(after)
    ids = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == row["prompt"] and len(before) > 5 < len(after)


@pytest.mark.parametrize("name", ["llama-3.2-1b", "llm-jepa-quickstart", "llm-jepa-synth"])
def test_recipe_trains(name, tmp_path):
    """With all it says of training; smaller, and from random weights."""
    small = ["--gradient_accumulation_steps", "1", "--attn_implementation", "eager", "--generated_depth", "1"]
    words = [*TINY, *small, "--compare", "llm_jepa", "--seeds", "1", "--output_dir", str(tmp_path / "run")]
    recipe = tmp_path / "recipe.yaml"
    text = (ROOT / "recipes" / f"{name}.yaml").read_text()
    recipe.write_text(text.replace("model_name_or_path: meta-llama/Llama-3.2-1B-Instruct\n", ""))
    assert finetune([str(recipe), *words]) == 0
    assert list((tmp_path / "run").rglob("model.safetensors"))


def test_results_say_what_was_measured_and_spent(compared):
    results = read_results(compared)
    assert results.model_names == ["ntp", "llm_jepa"]
    assert len(results.values(kind="answers", model="llm_jepa", metric="exact_match")) == 2
    ntp, jepa = (next(m for m in results.models if m["name"] == name) for name in ("ntp", "llm_jepa"))
    assert ntp["steps"] == jepa["steps"] == 3 and ntp["flops"] < jepa["flops"] and ntp["seed"] == 1


def test_the_recipe_of_a_run_repeats_it(compared, tmp_path):
    again = tmp_path / "again"
    assert finetune([str(compared / "llm_jepa-2" / "recipe.yaml"), "--output_dir", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (compared / "llm_jepa-2" / "model.safetensors").read_bytes()
    assert (again / "answers.jsonl").read_text() == (compared / "llm_jepa-2" / "answers.jsonl").read_text()


def test_an_arm_keeps_none_of_the_arguments_that_are_for_another(tmp_path):
    """Otherwise the command that repeats it would be refused."""
    words = [*TINY, "--generate", "false", "--max_steps", "1"]
    shared = ["--compare", "ntp", "llm_jepa", "--seeds", "1", "--num_predictor_tokens", "2", "--distance", "l2"]
    assert finetune([*words, *shared, "--output_dir", str(tmp_path / "run")]) == 0
    recipes = [read_recipe(tmp_path / "run" / name / "recipe.yaml") for name in ("ntp-1", "llm_jepa-1")]
    assert [recipe.get("num_predictor_tokens") for recipe in recipes] == [None, "2"]
    assert [recipe["distance"] for recipe in recipes] == ["l2", "l2"]
    again = ["--output_dir", str(tmp_path / "again")]
    assert finetune([str(tmp_path / "run" / "ntp-1" / "recipe.yaml"), *again]) == 0


def test_evaluation_of_what_was_saved_gives_the_same_answers(compared, tmp_path, capsys):
    models = [
        f"ntp={compared / 'ntp-1'},{compared / 'ntp-2'}",
        f"jepa={compared / 'llm_jepa-1'},{compared / 'llm_jepa-2'}",
    ]
    words = ["--task", "synth", "--max_new_tokens", "8", "--num_threads", "1", "--output_dir", str(tmp_path)]
    assert evaluate(["--models", *models, *words]) == 0
    for number, name in enumerate(("ntp-1", "ntp-2")):
        assert (tmp_path / f"answers-ntp-{number}.jsonl").read_text() == (
            compared / name / "answers.jsonl"
        ).read_text()
    results = read_results(tmp_path)
    assert len(results.values(kind="views", model="jepa", metric="matched_cosine")) == 2
    assert (tmp_path / "difference_spectrum.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "exact_match" in printed and "matched_cosine" in printed and "minus ntp" in printed
    assert report([str(tmp_path), "--output", str(tmp_path / "report"), "--baseline", "ntp"]) == 0
    assert "### jepa against ntp" in (tmp_path / "report/report.md").read_text()


def test_results_say_how_many_gold_queries_find_something(compared, tmp_path, capsys):
    (tmp_path / "tables.json").write_text(json.dumps([LIBRARY]))
    golds = ["SELECT name FROM author", "SELECT name FROM author WHERE 1 = 0", "SELECT absent FROM author"]
    rows = [{"text": f"For db_id:[library], query {n}", "code": gold} for n, gold in enumerate(golds)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--models", f"a={compared / 'ntp-1'}", "--task", "spider", "--test_file", str(tmp_path / "test.jsonl")]
    words += ["--spider_tables", str(tmp_path / "tables.json"), "--max_new_tokens", "4", "--geometry", "false"]
    assert evaluate([*words, "--num_threads", "1", "--output_dir", str(tmp_path / "out")]) == 0
    note = read_results(tmp_path / "out").notes["answers|spider"]
    assert "of 3 gold queries, 66.7 % run" in note and "33.3 % find a value" in note
    assert note in capsys.readouterr().out
    assert report([str(tmp_path / "out"), "--output", str(tmp_path / "report")]) == 0
    assert f"**spider**: {note}." in (tmp_path / "report/report.md").read_text()


def test_views_are_drawn_where_there_are_enough(compared, tmp_path):
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps({"text": f"text {n}", "code": f"code {n}"}) + "\n" for n in range(40)))
    words = ["--models", f"a={compared / 'llm_jepa-1'}", "--generate", "false", "--test_file", str(data)]
    assert evaluate([*words, "--num_threads", "1", "--output_dir", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "views-a.png").stat().st_size > 5000
    assert not list((tmp_path / "out").glob("answers*"))


def test_views_are_measured_at_the_layer_of_the_training(compared, tmp_path, monkeypatch):
    """Layer 0 are the word embeddings, where every predictor token looks the same."""
    shutil.copytree(compared / "llm_jepa-1", tmp_path / "model")
    with open(tmp_path / "model" / "recipe.yaml", "a") as file:
        file.write("jepa_layer: 0\n")
    seen = []

    def watched(source, *others):
        seen.append(source)
        return measure_pairs(source, *others)

    monkeypatch.setattr(evaluate_llm_jepa, "measure_pairs", watched)
    words = ["--models", f"a={tmp_path / 'model'}", f"b={compared / 'llm_jepa-1'}", "--generate", "false"]
    words += ["--tsne", "false", "--num_threads", "1", "--output_dir", str(tmp_path / "out")]
    assert evaluate(words) == 0
    assert [bool((source == source[0]).all()) for source in seen] == [True, False]


@pytest.mark.parametrize("options", [["--use_lora", "true", "--lora_rank", "4"], ["--strip_predictor_tokens", "true"]])
def test_a_model_on_disk_is_fine_tuned(tmp_path, options):
    tokenizer = causal.tokenizer("qwen")
    causal.model(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps({"text": f"text {n}", "code": "ab"[n % 2]}) + "\n" for n in range(30)))
    words = [
        *("--model_name_or_path", str(tmp_path / "base"), "--train_file", str(data), "--test_file", str(data)),
        *("--max_test_samples", "4", "--task", "exact_match", "--max_new_tokens", "4", "--max_seq_length", "64"),
        *("--max_steps", "2", "--per_device_train_batch_size", "4", "--eval_strategy", "no", "--save_strategy", "no"),
        *("--num_threads", "1", "--disable_tqdm", "true", "--report_to", "none"),
    ]
    assert finetune([*words, *options, "--output_dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file() == ("--use_lora" in options)
    assert ("predictor" in (tmp_path / "run" / "tokenizer.json").read_text()) == ("--use_lora" in options)
    more = ["--models", f"a={tmp_path / 'run'}", "--test_file", str(data), "--max_test_samples", "8"]
    more += ["--max_new_tokens", "4", "--num_threads", "1", "--output_dir", str(tmp_path / "out")]
    assert evaluate(more) == 0
    run_example(tmp_path / "run")


def test_as_published_runs_and_says_so_in_its_recipe(tmp_path):
    assert finetune([*TINY, "--reference_compat", "true", "--output_dir", str(tmp_path / "run")]) == 0
    assert read_recipe(tmp_path / "run" / "recipe.yaml")["reference_compat"] is not None


def test_interrupted_comparisons_go_on(compared, tmp_path, capsys):
    words = [*TINY, "--save_strategy", "steps", "--save_steps", "2", "--output_dir", str(tmp_path / "run")]
    assert finetune(words) == 0
    (tmp_path / "run" / "model.safetensors").unlink()
    assert finetune(words) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert finetune([*words, "--resume_from_checkpoint", "true"]) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert finetune([*words, "--resume_from_checkpoint", "true", "--learning_rate", "1"]) == 2
    assert "`learning_rate`" in capsys.readouterr().err


CHAT = {"messages": [{"role": "user", "content": "q"}]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "sinth"], "Unknown task `sinth`; did you mean `synth`?"),
        (["--num_predictor_tokens", "11"], "`num_predictor_tokens` is 11"),
        (["--jepa_dropout", "1"], "`jepa_dropout` is 1.0"),
        (["--jepa_lambda", "-1"], "`jepa_lambda` is -1.0"),
        (["--temperature", "0"], "`temperature` is 0.0"),
        (["--method", "ntp", "--gamma", "0"], "`gamma` is 0"),
        (["--max_flops", "1e12"], "`max_flops` decides the number of updates"),
        (["--max_flops", "1e30", "--max_steps", "-1"], "`max_flops` is 1e+30"),
        (["--compare", "ntp", "mlm"], "`compare`: 'mlm' is not one of"),
        (["--seeds", "1", "1"], "names something twice"),
        (["--train_file", "nowhere.jsonl"], "'nowhere.jsonl' does not exist"),
        (["--test_file", "nowhere.jsonl"], "need a `train_file`"),
        (["--readout", "3"], "`readout` is '3'"),
        (["--max_seq_length", "9"], "All 54 records were dropped"),
        (["--chat_format", "plain", "--view_prefix", "nothing"], "view_prefix"),
        (["--per_device_train_batch_size", "500"], "`dataloader_drop_last` drops all there is"),
        (["--use_lora", "true"], "`use_lora` saves adapters alone"),
        (["--model_type", "lama"], "did you mean `llama`"),
        (
            ["--method", "ntp", "--num_predictor_tokens", "4"],
            "`num_predictor_tokens` is 4, without effect: it needs method=llm",
        ),
        (["--method", "ntp", "--target_grad", "ema"], "`target_grad` is ema, without effect: it needs method=llm"),
        (["--temperature", "0.2"], "`temperature` is 0.2, without effect: it needs distance=infonce"),
        (["--ema_decay", "0.9"], "`ema_decay` is 0.9, without effect: it needs target_grad=ema"),
        (["--lambda_warmup", "0.3"], "`lambda_warmup` is 0.3, without effect: it needs jepa_lambda_sch"),
        (["--method", "tube", "--distance", "infonce"], "`distance` is infonce, without effect: it needs method=llm"),
        (["--metric_for_best_model", "eval_mlm_loss"], "`metric_for_best_model`"),
        (["--jepa_lamda", "1"], "did you mean `jepa_lambda`?"),
        (["--validation_share", "0"], "`validation_share` is 0.0"),
        (["--max_new_tokens", "250"], "with `max_new_tokens` 250 that is more than the model's 256 positions"),
        (["--attn_implementation", "flash_attention_2"], "refuses float32: add `--bf16 true`"),
        (["--task", "yelp"], "is none of 'Very Good'"),
    ],
    ids=str,
)
def test_mistakes_are_named(tmp_path, capsys, words, message):
    assert finetune([*TINY, "--output_dir", str(tmp_path / "run"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and "Traceback" not in error
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_adapters_keep_their_predictor_tokens(tmp_path, capsys):
    words = ["--model_name_or_path", "x", "--use_lora", "true", "--strip_predictor_tokens", "true"]
    assert finetune([*words, "--output_dir", str(tmp_path / "run")]) == 2
    assert "merge the adapters" in capsys.readouterr().err


def test_records_without_an_answer_are_named(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text(json.dumps(CHAT) + "\n")
    assert finetune([*TINY, "--train_file", str(tmp_path / "x.jsonl"), "--output_dir", str(tmp_path / "run")]) == 2
    assert "row 1: `messages` must be a user turn and an assistant turn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Give `models`"),
        (["--models", "a=nowhere"], "cannot load a tokenizer from 'nowhere'"),
        (["--models", "a=x", "--baseline", "b"], "`baseline` 'b' is none of the models a"),
        (["--models", "a=x", "--task", "sql"], "Unknown task `sql`"),
        (["--models", "a=x", "--generate", "false", "--geometry", "false"], "nothing to do"),
        (["--models", "a=x", "--batch_size", "0"], "`batch_size` is 0"),
        (["--models", "a=x", "--task", "spider"], "needs `spider_tables`"),
    ],
    ids=str,
)
def test_mistakes_of_evaluation_are_named(tmp_path, capsys, words, message):
    assert evaluate([*words, "--output_dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_two_stages_paraphrases_then_labels(tmp_path):
    """As in the paper: groups of paraphrases from random weights, then ordinary fine-tuning on labels."""
    words = ["a dog runs", "a cat sleeps", "two men talk", "a child laughs"]
    groups = [[f"{words[n % 4]} {n} {m}" for m in range(3)] for n in range(20)]
    pq.write_table(pa.table({"captions": groups}), tmp_path / "captions.parquet")
    shared = ["--num_threads", "1", "--disable_tqdm", "true", "--report_to", "none", "--eval_strategy", "no"]
    shared += ["--save_strategy", "no", "--max_steps", "2", "--per_device_train_batch_size", "4"]
    first = ["--train_file", str(tmp_path / "captions.parquet"), "--chat_format", "plain", "--label_scope", "all"]
    first += ["--init", "random", "--model_type", "llama", "--model_config", MODEL, "--train_tokenizer", "true"]
    first += ["--vocab_size", "330", "--max_seq_length", "64", "--method", "llm_jepa", "--num_predictor_tokens", "2"]
    assert finetune([*first, *shared, "--generate", "false", "--output_dir", str(tmp_path / "first")]) == 0
    labels = [{"text": f"{words[n % 4]} {n}", "code": ("Good", "Bad")[n % 2]} for n in range(30)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    second = ["--model_name_or_path", str(tmp_path / "first"), "--method", "ntp", "--task", "rotten_tomatoes"]
    second += ["--train_file", str(tmp_path / "labels.jsonl"), "--test_file", str(tmp_path / "labels.jsonl")]
    assert finetune([*second, *shared, "--max_seq_length", "64", "--output_dir", str(tmp_path / "second")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "second" / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 30 and {row["gold"] for row in rows} == {"Good", "Bad"}
    vocabulary = AutoTokenizer.from_pretrained(tmp_path / "second").get_vocab()
    assert vocabulary == AutoTokenizer.from_pretrained(tmp_path / "first").get_vocab()


def test_interrupted_comparison_goes_on(compared, tmp_path, capsys):
    """What is finished stays, with its answers; what is not there is trained."""
    folder = tmp_path / "again"
    shutil.copytree(compared, folder)
    shutil.rmtree(folder / "llm_jepa-2")
    (folder / "results.json").unlink()
    kept = (folder / "ntp-1" / "model.safetensors").stat().st_mtime_ns
    words = [*TINY, "--compare", "ntp", "llm_jepa", "--seeds", "1", "2", "--output_dir", str(folder)]
    assert finetune([*words, "--resume_from_checkpoint", "true"]) == 0
    assert capsys.readouterr().out.count("finished before") == 3
    assert (folder / "ntp-1" / "model.safetensors").stat().st_mtime_ns == kept
    found, before = read_results(folder), read_results(compared)
    for name in ("ntp", "llm_jepa"):
        values = [one.values(kind="answers", model=name, metric="exact_match").tolist() for one in (found, before)]
        assert values[0] == values[1] and len(values[0]) == 2
    assert [(m["name"], m["replicate"]) for m in found.models] == [(m["name"], m["replicate"]) for m in before.models]
    assert finetune([*words, "--learning_rate", "1e-3", "--resume_from_checkpoint", "true"]) == 2
    error = capsys.readouterr().err
    assert "The finished run in ntp-1 does not match this recipe: `learning_rate` was None and is now '0.001'" in error


def test_folder_without_a_checkpoint_is_not_said_to_have_one(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"")
    words = [*TINY, "--output_dir", str(tmp_path / "run"), "--resume_from_checkpoint", "true"]
    assert finetune(words) == 2
    error = capsys.readouterr().err
    assert "it has no checkpoint to go on from" in error and "go on with" not in error


@pytest.mark.parametrize(
    ("methods", "words", "weights"),
    [
        (("ntp", "tube"), [], {"ntp": "0.0", "tube": "0.02"}),
        (("ntp", "tube", "llm_jepa"), ["--jepa_lambda", "0.1"], {"ntp": "0.0", "tube": "0.1", "llm_jepa": "0.1"}),
    ],
)
def test_weight_that_was_given_is_that_of_every_method(tmp_path, methods, words, weights):
    short = [*TINY, "--generate", "false", "--max_steps", "1", "--compare", *methods, "--seeds", "1", *words]
    assert finetune([*short, "--output_dir", str(tmp_path)]) == 0
    recipes = {name: read_recipe(tmp_path / f"{name}-1" / "recipe.yaml") for name in methods}
    assert {name: str(recipe["jepa_lambda"]) for name, recipe in recipes.items()} == weights


def test_comparison_is_checked_before_its_first_run(tmp_path, capsys):
    words = [*TINY, "--compare", "llm_jepa", "ntp", "--seeds", "1", "--gamma", "0", "--output_dir", str(tmp_path)]
    assert finetune(words) == 2
    assert "`method` ntp: `gamma` is 0" in capsys.readouterr().err and not list(tmp_path.rglob("*.safetensors"))
