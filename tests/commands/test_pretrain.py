"""The command, end to end, on a corpus of a few kilobytes."""

import dataclasses
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

from predrec.commands import main as console
from predrec.commands.pretrain import main
from predrec.commands.pretraining_parts import build_model
from predrec.configuration import DataArguments, ModelArguments
from predrec.trainers import NonFiniteLossError, PredRecTrainer
from predrec.trainers.interrupt import SIGNALS
from tests import training

ROOT = Path(__file__).parents[2]
SMALL = [
    *["--hidden_size", "16", "--num_hidden_layers", "2", "--num_attention_heads", "2", "--intermediate_size", "32"],
    *["--max_seq_length", "32", "--train_tokenizer", "--vocab_size", "120"],
    *["--num_threads", "1", "--disable_tqdm", "true"],
    *["--max_steps", "4", "--per_device_train_batch_size", "4", "--logging_steps", "2"],
    *["--eval_steps", "2", "--save_steps", "2", "--monitor_examples", "4", "--learning_rate", "1e-3"],
    *["--validation_share", "0.1"],
]
TINY = [*SMALL, "--predictor_num_hidden_layers", "1", "--min_context_tokens", "4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, text_file) -> Path:
    """The output directory of a finished run."""
    output = tmp_path_factory.mktemp("run") / "tiny"
    assert main(["--train_file", text_file, "--output_dir", str(output), *TINY]) == 0
    return output


def test_output_directory_holds_what_is_promised(finished):
    names = {path.name for path in finished.iterdir()}
    promised = {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "README.md",
        "training_curves.png",
        "recipe.yaml",
    }
    assert promised | {"checkpoint-2", "checkpoint-4"} <= names
    assert not any(name.startswith(".checkpoint") for name in names)


def test_auto_model_loads_the_trained_encoder_from_the_root(finished):
    encoder, info = AutoModel.from_pretrained(finished, output_loading_info=True)
    assert type(encoder).__name__ == "PredRecModel"
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_root_holds_the_last_step(finished):
    from safetensors.torch import load_file

    exported, saved = load_file(finished / "model.safetensors"), load_file(finished / "checkpoint-4/model.safetensors")
    assert exported and all(torch.equal(value, saved[f"masked_lm.{name}"]) for name, value in exported.items())


def test_auto_model_for_masked_lm_loads_cleanly(finished):
    _, info = AutoModelForMaskedLM.from_pretrained(finished, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_tokenizer_cuts_to_what_the_encoder_takes(tmp_path, text_file):
    tokenizer = training.tokenizer()
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    words = [
        "--train_file",
        text_file,
        "--max_position_embeddings",
        "40",
        "--output_dir",
        str(tmp_path / "run"),
        *TINY,
    ]
    trained = ["--train_tokenizer", "--vocab_size", "120"]
    start = words.index(trained[0])
    words[start : start + len(trained)] = ["--tokenizer_name", str(tmp_path / "tokenizer")]
    assert main(words) == 0
    exported = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert len(exported("ship " * 99, truncation=True)["input_ids"]) == 40


@pytest.mark.parametrize("model_type", ["mpnet", "data2vec-text", "roberta-prelayernorm"])
def test_unlisted_architectures_have_room_for_their_first_positions(tmp_path, model_type):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    arguments = ModelArguments(model_type=model_type, objective="mlm", **sizes)
    model = build_model(arguments, DataArguments(max_seq_length=512), training.tokenizer())
    assert model.encoder(input_ids=torch.full((1, 512), 7)).last_hidden_state.shape == (1, 512, 16)


def test_vocabulary_is_rounded_up(text_file, tmp_path):
    words = ["--train_file", text_file, "--output_dir", str(tmp_path), *TINY, "--pad_vocab_to_multiple_of", "64"]
    assert main([*words, "--max_steps", "1", "--eval_strategy", "no"]) == 0
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert model.config.vocab_size == len(model.get_input_embeddings().weight) == 128 > len(tokenizer)


def test_fill_mask_pipeline_works(finished):
    answers = pipeline("fill-mask", model=str(finished))("the old [MASK] takes a slow ship")
    assert len(answers) == 5
    assert {answer["token_str"] for answer in answers} <= set(AutoTokenizer.from_pretrained(finished).get_vocab())


def test_console_output_says_what_happened(finished, text_file, tmp_path, capfd):
    assert main(["--train_file", text_file, "--output_dir", str(tmp_path / "x"), *TINY]) == 0
    printed = capfd.readouterr().out
    assert re.search(r"trained in \d+ s", printed)
    for term in ("'loss'", "mlm_loss", "jepa_loss", "loss_lambda", "ema_decay", "tokens_per_second", "eval_mlm_loss"):
        assert term in printed
    assert "unigram entropy" in printed
    assert printed.split("next:")[1].strip().count("\n") == 2


def test_model_card_reports_the_run(finished):
    card = (finished / "README.md").read_text(encoding="utf-8")
    for part in (
        "held-out masked-LM loss",
        "corpus.txt",
        "4 updates of 4 rows",
        "hidden size 16",
        "torch ",
        "```yaml",
    ):
        assert part in card


def test_crops_train_and_the_card_tells_what_they_beat(tmp_path, text_file, capfd):
    options = ["--jepa_view", "crops", "--crop_length", "3", "7", "--num_mask_sets", "2", "--target_layers", "0"]
    options += ["--whiten_targets", "true", "--context_text", "original", "--center_decay", "0.99"]
    options += ["--position_embedding_type", "rotary", "--learning_rate", "1e-2", "--max_steps", "60"]
    output = tmp_path / "run"
    assert main(["--train_file", text_file, "--output_dir", str(output), *SMALL, *options]) == 0
    printed = capfd.readouterr().out
    assert "predictor" not in printed.split("model: ")[1].splitlines()[0]
    history = json.loads((output / "checkpoint-60/trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_jepa_loss"] for entry in history if "eval_jepa_loss" in entry]
    assert losses[-1] < losses[0] - 0.05, losses
    _, info = AutoModelForMaskedLM.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    card = (output / "README.md").read_text(encoding="utf-8")
    for part in ("latents of short crops", "jepa_view: crops", "margin of the JEPA loss over the best trivial"):
        assert part in card


def test_recipe_of_the_run_reproduces_it(finished, tmp_path):
    recipe = finished / "recipe.yaml"
    assert main([str(recipe), "--output_dir", str(tmp_path / "again")]) == 0
    states = [AutoModel.from_pretrained(directory).state_dict() for directory in (finished, tmp_path / "again")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_curves_are_a_picture(finished):
    assert (finished / "training_curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("objective", ["mlm", "jepa"])
def test_other_objectives_run(text_file, tmp_path, objective):
    output = tmp_path / objective
    assert main(["--train_file", text_file, "--output_dir", str(output), *TINY, "--objective", objective]) == 0
    AutoModelForMaskedLM.from_pretrained(output)


@pytest.mark.parametrize("objective", ["hybrid", "mlm"])
def test_isolated_documents_run(text_file, tmp_path, objective):
    options = ["--isolate_documents", "true", "--objective", objective]
    assert main(["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY, *options]) == 0
    log = json.loads((tmp_path / "run" / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert any("eval_mlm_loss" in entry for entry in log)


def test_cheap_variants_run_together(text_file, tmp_path):
    options = [
        *["--mlm_view", "context", "--predictor_attention", "cross", "--predictor_hidden_size", "8"],
        *["--jepa_dropout", "0.5", "--num_mask_sets", "2"],
    ]
    assert main(["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY, *options]) == 0


@pytest.mark.parametrize("packing", ["true", "false"])
def test_streaming_runs(text_file, tmp_path, packing):
    options = ["--streaming", "--packing", packing, "--tokenizer_name", str(tmp_path / "tokenizer")]
    training.tokenizer().save_pretrained(tmp_path / "tokenizer")
    words = [
        word for word in TINY if word not in ("--train_tokenizer", "--vocab_size", "120", "--validation_share", "0.1")
    ]
    assert main(["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *words, *options]) == 0


@pytest.mark.parametrize("suffix", [".txt.gz", ".jsonl", ".parquet"])
def test_own_text_in_every_format(tmp_path, suffix):
    path, texts = tmp_path / f"own{suffix}", list(training.corpus())
    if suffix == ".txt.gz":
        path.write_bytes(gzip.compress("\n".join(texts).encode()))
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"body": text}) for text in texts))
    else:
        import pandas

        pandas.DataFrame({"body": texts}).to_parquet(path)
    column = [] if suffix == ".txt.gz" else ["--text_column", "body"]
    assert main(["--train_file", str(path), "--output_dir", str(tmp_path / "run"), *TINY, *column]) == 0


STOCK = {
    "bert": "BertForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
}


@pytest.mark.parametrize("model_type", STOCK)
def test_stock_encoder_stays_stock(text_file, tmp_path, model_type):
    output = tmp_path / model_type
    assert main(["--train_file", text_file, "--output_dir", str(output), *TINY, "--model_type", model_type]) == 0
    config = json.loads((output / "config.json").read_text())
    assert config["model_type"] == model_type
    assert config["architectures"] == [STOCK[model_type]]
    assert "auto_map" not in config
    assert not list(output.glob("*.py"))


def test_init_from_continues_a_trained_encoder(finished, text_file, tmp_path):
    """With a learning rate of nearly nothing, the continued encoder is the one it began from."""
    words = [word for word in TINY if not word.startswith(("--train_tok", "--vocab"))]
    for name in ("--hidden_size", "--num_hidden_layers", "--num_attention_heads", "--intermediate_size"):
        position = words.index(name)
        del words[position : position + 2]
    words.remove("120")
    output = tmp_path / "continued"
    options = ["--init_from", str(finished), "--learning_rate", "1e-12", "--weight_decay", "0"]
    assert main(["--train_file", text_file, "--output_dir", str(output), *words, *options]) == 0
    before, after = AutoModel.from_pretrained(finished), AutoModel.from_pretrained(output)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, rtol=0, atol=1e-6)
    assert AutoTokenizer.from_pretrained(output).get_vocab() == AutoTokenizer.from_pretrained(finished).get_vocab()


def test_interrupted_run_goes_on_to_the_same_end(text_file, finished, tmp_path):
    """SIGTERM during the run saves and exits; resuming ends with the weights of a run that never stopped."""
    output = tmp_path / "run"
    words = ["--train_file", text_file, "--output_dir", str(output), *TINY]
    script = (
        "import os, signal, sys\n"
        "from transformers import TrainerCallback\n"
        "from predrec.trainers import ema\n"
        "from predrec.commands.pretrain import main\n"
        "original = ema.ScheduleCallback.on_step_begin\n"
        "def on_step_begin(self, args, state, control, **kwargs):\n"
        "    if state.global_step == 2:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return original(self, args, state, control, **kwargs)\n"
        "ema.ScheduleCallback.on_step_begin = on_step_begin\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    stopped = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=ROOT)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert "stopped at step 3; go on with:" in stopped.stdout
    assert main([*words, "--resume_from_checkpoint", "true"]) == 0
    resumed, whole = AutoModel.from_pretrained(output), AutoModel.from_pretrained(finished)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.slow
def test_killed_run_goes_on_to_the_same_end(text_file, finished, tmp_path):
    """kill -9 while training; what was saved is enough."""
    output = tmp_path / "run"
    words = ["--train_file", text_file, "--output_dir", str(output), *TINY]
    process = subprocess.Popen(
        [sys.executable, "scripts/pretrain.py", *words, "--max_steps", "4", "--torch_empty_cache_steps", "1"], cwd=ROOT
    )
    deadline = time.time() + 120
    while not (output / "checkpoint-2").is_dir() and time.time() < deadline:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "The run ended before it could be killed."
    assert (output / "checkpoint-2").is_dir()
    arguments = [*words, "--torch_empty_cache_steps", "1", "--resume_from_checkpoint", "true"]
    assert main(arguments) == 0
    resumed, whole = AutoModel.from_pretrained(output), AutoModel.from_pretrained(finished)
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in whole.state_dict().items())


@pytest.mark.slow
def test_run_that_fails_gives_the_signals_back(text_file, tmp_path, monkeypatch, capsys):
    def fail(self, *args, **kwargs):
        raise NonFiniteLossError("The loss is NaN.")

    monkeypatch.setattr(PredRecTrainer, "training_step", fail)
    before = [signal.getsignal(number) for number in SIGNALS]
    assert main(["--train_file", text_file, "--output_dir", str(tmp_path / "out"), *TINY]) == 1
    assert "The loss is NaN" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_launcher_runs_the_script_with_all_cores(text_file, tmp_path):
    words = [word for index, word in enumerate(TINY) if word != "--num_threads" and TINY[index - 1] != "--num_threads"]
    command = [
        *[sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "scripts/pretrain.py"],
        *["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *words],
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"threads: {len(os.sched_getaffinity(0))}" in result.stdout


@pytest.mark.slow
def test_launcher_shows_no_traceback_for_a_user_error(tmp_path):
    command = [
        *[sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "scripts/pretrain.py"],
        *["--output_dir", str(tmp_path / "run"), "--train_tokeniser", "true"],
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "did you mean `train_tokenizer`?" in result.stderr
    assert "Traceback" not in result.stderr


def test_console_command_lists_and_refuses(capsys):
    assert console.main(["--help"]) == 0
    assert "pretrain" in capsys.readouterr().out
    assert console.main(["pretrian"]) == 2
    assert "pretrian" in capsys.readouterr().err


def fits(recipe: Path, arguments) -> bool:
    """Whether every entry of a recipe is one of these arguments."""
    names = {field.name for group in arguments for field in dataclasses.fields(group)}
    return set(yaml.load(recipe.read_text(), yaml.BaseLoader)) <= names


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_is_complete_and_valid(recipe):
    from predrec.commands import finetune_llm_jepa, pretrain
    from predrec.configuration import parse_recipe

    commands = [command for command in (pretrain, finetune_llm_jepa) if fits(recipe, command.ARGUMENTS)]
    assert commands, "no command has all these arguments"
    arguments, resolved = parse_recipe([str(recipe)], commands[0].ARGUMENTS)
    if commands[0] is pretrain:
        pretrain.check_together(*arguments)
    assert set(yaml.load(recipe.read_text(), yaml.BaseLoader)) == set(resolved)
    assert resolved["output_dir"].startswith("outputs/")
