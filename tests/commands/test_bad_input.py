"""Every mistake gets one error that names the field and what to do, and nothing already written is lost."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from predrec.commands.pretrain import main
from predrec.trainers import ema
from predrec.trainers.checkpoints import checkpoints_in
from tests import training
from tests.commands.test_pretrain import ROOT, TINY


def fingerprint(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a directory."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def refused(refusal, tmp_path):
    """Runs the command, expects that it refuses and leaves no weights, and returns the message."""

    def run(*words: str) -> str:
        message = refusal(main, "--output_dir", tmp_path / "run", *TINY, *words)
        assert not list((tmp_path / "run").glob("*.safetensors"))
        return message

    return run


@pytest.mark.parametrize("content", ["", "\n\n  \n"], ids=["empty", "blank"])
def test_empty_corpus(refused, tmp_path, content):
    (tmp_path / "empty.txt").write_text(content)
    message = refused("--train_file", str(tmp_path / "empty.txt"))
    assert "`train_file`" in message and "empty" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jepa_view", "crops"], "`predictor_num_hidden_layers` is only for `jepa_view=blocks`"),
        (["--crop_length", "4", "6"], "`crop_length` is only for `jepa_view=crops`"),
        (["--crop_length", "6", "4"], "`crop_length` is [6, 4]; it must be two numbers of tokens LO and HI"),
        (["--loss_lambda_end", "0.9"], "`loss_lambda_end` is only for `loss_weighting=schedule`"),
        (["--loss_weighting", "schedule"], "ends where it begins, at 0.5"),
        (["--jepa_temperature", "0.2"], "`jepa_temperature` is only for `jepa_loss=infonce`"),
        (["--jepa_regularizer_weight", "2"], "is only for `jepa_loss=sigreg or vicreg`"),
        (["--whiten_epsilon", "0.1"], "`whiten_epsilon` is only for `whiten_targets=True`"),
        (["--rotary_base", "500"], "`rotary_base` is only for `position_embedding_type=rotary`"),
        (["--text_column", "body"], "`text_column` is for files with columns, not for txt"),
        (["--validation_share", "0.3", "--validation_file", "held-out.txt"], "drop either"),
        (["--do_train", "false"], "`do_train` cannot be false"),
        (["--do_eval", "false"], "`do_eval` cannot be false"),
        (["--objective", "mlm", "--metric_for_best_model", "eval_jepa_loss"], "which `objective=mlm` does not train"),
        (["--objective", "jepa", "--metric_for_best_model", "eval_mlm_accuracy"], "`objective=jepa` does not train"),
        (["--objective", "jepa", "--save_strategy", "best"], "add `--metric_for_best_model eval_jepa_loss`"),
        (["--objective", "jepa", "--lr_scheduler_type", "reduce_lr_on_plateau"], "`lr_scheduler_type=reduce_lr_on"),
    ],
)
def test_argument_without_effect_is_refused(refused, text_file, words, message):
    assert message in refused("--train_file", text_file, *words)


def test_missing_file(refused, tmp_path):
    message = refused("--train_file", str(tmp_path / "nowhere.txt"))
    assert "`train_file`" in message and "does not exist" in message


def test_glob_without_match(refused, tmp_path):
    assert "`train_file`" in refused("--train_file", str(tmp_path / "*.jsonl"))


def test_unknown_format(refused, tmp_path):
    (tmp_path / "text.docx").write_text("x")
    assert ".parquet" in refused("--train_file", str(tmp_path / "text.docx"))


def test_broken_json(refused, tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text": "one"}\n{"text": ')
    message = refused("--train_file", str(tmp_path / "text.jsonl"))
    assert "`train_file`" in message


def test_missing_column(refused, tmp_path):
    (tmp_path / "text.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    message = refused("--train_file", str(tmp_path / "text.jsonl"), "--text_column", "bodi")
    assert "`text_column`" in message and "'bodi'" in message and "'body'" in message


def test_column_of_numbers(refused, tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text": 1}\n{"text": 2}\n')
    assert "`text_column`" in refused("--train_file", str(tmp_path / "text.jsonl"))


def test_hub_dataset_that_cannot_be_reached(refused):
    message = refused("--dataset_name", "nobody/nothing")
    assert "`dataset_name`" in message and "train_file" in message


@pytest.mark.parametrize("packing", ["true", "false"])
def test_documents_of_one_token_count_for_mlm_alone(tmp_path, capfd, packing):
    """Not an error: such rows have no JEPA targets, and training goes on with what can be masked."""
    (tmp_path / "short.txt").write_text("ship\n" * 400)
    words = ["--train_file", str(tmp_path / "short.txt"), "--output_dir", str(tmp_path / "run"), *TINY]
    assert main([*words, "--packing", packing]) == 0
    entries = json.loads((tmp_path / "run/checkpoint-4/trainer_state.json").read_text())["log_history"]
    assert all(entry["mlm_loss"] > 0 for entry in entries if "mlm_loss" in entry)


def test_text_without_known_word_pieces(tmp_path, capfd):
    (tmp_path / "greek.txt").write_text("Ελλάδα\nθάλασσα\n" * 50, encoding="utf-8")
    training.tokenizer().save_pretrained(tmp_path / "tokenizer")
    words = ["--train_file", str(tmp_path / "greek.txt"), "--tokenizer_name", str(tmp_path / "tokenizer")]
    arguments = [word for word in TINY if word not in ("--train_tokenizer", "--vocab_size", "120")]
    assert main([*words, "--output_dir", str(tmp_path / "run"), *arguments]) == 2
    message = capfd.readouterr().err
    assert "`tokenizer_name`" in message and "word pieces" in message


def test_max_length_below_what_the_masks_need(refused, text_file):
    message = refused("--train_file", text_file, "--max_seq_length", "12")
    assert "`max_seq_length`" in message and "16" in message


def test_scales_that_leave_nothing_visible(refused, text_file):
    words = ["--context_scale", "0.2", "0.3", "--target_scale", "0.4", "0.5"]
    message = refused("--train_file", text_file, *words)
    assert "`context_scale`" in message and "`target_scale`" in message and "visible" in message


def test_unknown_argument_names_the_nearest(refused, text_file):
    assert "did you mean `learning_rate`?" in refused("--train_file", text_file, "--learning_rat", "1")


def test_wrong_type(refused, text_file):
    message = refused("--train_file", text_file, "--learning_rate", "fast")
    assert "--learning_rate" in message and "fast" in message


def test_impossible_value(refused, text_file):
    assert "`ema_decay`" in refused("--train_file", text_file, "--ema_decay", "1.5")


def test_vocabulary_and_tokenizer_that_disagree(tmp_path, text_file, capfd):
    small = training.model(objective="mlm", encoder=training.encoder_config(vocab_size=50))
    small.masked_lm.save_pretrained(tmp_path / "small")
    training.tokenizer().save_pretrained(tmp_path / "tokenizer")
    words = ["--init_from", str(tmp_path / "small"), "--tokenizer_name", str(tmp_path / "tokenizer")]
    options = ["--train_file", text_file, "--output_dir", str(tmp_path / "run"), "--max_seq_length", "32"]
    assert main([*words, *options, "--min_context_tokens", "4", "--max_steps", "2"]) == 2
    message = capfd.readouterr().err
    assert "tokenizer has" in message and "50" in message and "disagree" in message


def test_sequence_longer_than_the_encoder_takes(refused, text_file):
    message = refused("--train_file", text_file, "--max_position_embeddings", "20")
    assert "`max_seq_length`" in message and "20" in message


def test_output_directory_of_another_run(tmp_path, text_file, capfd):
    words = ["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY]
    assert main(words) == 0
    before = fingerprint(tmp_path / "run")
    assert main(words) == 2
    assert "--resume_from_checkpoint true" in capfd.readouterr().err
    assert fingerprint(tmp_path / "run") == before


def test_checkpoint_that_does_not_match_its_recipe(tmp_path, text_file, capfd):
    words = ["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY]
    assert main(words) == 0
    before = fingerprint(tmp_path / "run")
    changed = [*words, "--resume_from_checkpoint", "true", "--jepa_loss", "mse"]
    assert main(changed) == 2
    message = capfd.readouterr().err
    assert "`jepa_loss` was 'cosine' and is now 'mse'" in message and "--ignore_recipe_mismatch" in message
    assert fingerprint(tmp_path / "run") == before


def test_resume_may_change_what_does_not_touch_the_result(tmp_path, text_file):
    words = ["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY]
    assert main(words) == 0
    changed = [*words, "--resume_from_checkpoint", "true", "--logging_steps", "1", "--dataloader_num_workers", "0"]
    assert main(changed) == 0


def test_resume_from_what_is_not_a_checkpoint(refused, text_file, tmp_path):
    message = refused("--train_file", text_file, "--resume_from_checkpoint", str(tmp_path))
    assert "`resume_from_checkpoint`" in message


def test_output_directory_that_is_a_file(refused, text_file, tmp_path):
    (tmp_path / "run").write_text("x")
    assert "`output_dir`" in refused("--train_file", text_file)


@pytest.fixture
def poison_after(monkeypatch):
    """Makes the loss NaN in the step after the one given."""

    def poison(step: int) -> None:
        original = ema.ScheduleCallback.on_step_begin

        def on_step_begin(self, args, state, control, model=None, **kwargs):
            if state.global_step == step:
                with torch.no_grad():
                    model.masked_lm.lm_head.decoder.bias.fill_(float("nan"))
            return original(self, args, state, control, model=model, **kwargs)

        monkeypatch.setattr(ema.ScheduleCallback, "on_step_begin", on_step_begin)

    return poison


def test_nan_loss_names_step_and_examples(tmp_path, text_file, capfd, poison_after):
    """The weights of step 3 are poisoned: checkpoint-2 stays the newest, and the exit code is not 0."""
    poison_after(2)
    assert main(["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY]) == 1
    message = capfd.readouterr().err
    assert "not finite at step 3" in message and "examples [" in message
    assert [path.name for path in checkpoints_in(tmp_path / "run")] == ["checkpoint-2"]


@pytest.mark.slow
def test_full_disk_keeps_the_previous_checkpoint(tmp_path, text_file):
    """Writes fail for real, part of the way into the second checkpoint: no file may grow beyond a limit."""
    words = ["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY]
    script = (
        "import resource, signal, sys\n"
        "from predrec.trainers import trainer\n"
        "from predrec.commands.pretrain import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "original = trainer.PredRecTrainer._save_optimizer_and_scheduler\n"
        "def limited(self, directory):\n"
        "    if self.state.global_step == 4:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))\n"
        "    return original(self, directory)\n"
        "trainer.PredRecTrainer._save_optimizer_and_scheduler = limited\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "`output_dir`" in result.stderr and "checkpoint-2 is intact" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-2"]
    assert main([*words, "--resume_from_checkpoint", "true"]) == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--seed -1", ["`seed`"]),
        ("--dataloader_num_workers -1", ["`dataloader_num_workers`"]),
        ("--eval_steps -5", ["`eval_steps`"]),
        ("--learning_rate inf", ["`learning_rate`", "finite"]),
        ("--weight_decay nan", ["`weight_decay`", "finite"]),
        ("--hidden_act foo", ["`hidden_act`", "gelu"]),
        ("--initializer_range -1", ["`initializer_range`"]),
        ("--hidden_dropout_prob 1.5", ["`hidden_dropout_prob`"]),
        ("--rotary_base 0", ["`rotary_base`"]),
        ("--metric_for_best_model bogus", ["`metric_for_best_model`", "eval_mlm_loss"]),
        ("--label_smoothing_factor 0.1", ["`label_smoothing_factor`"]),
        ("--hub_strategy every_save", ["`hub_strategy`"]),
        ("--model_type t5", ["`model_type`"]),
        ("--model_type berd", ["did you mean `bert`?"]),
        ("--mlm_view context --model_type albert", ["`mlm_view=context`", "albert"]),
        ("--attn_implementation nonsense", ["nonsense"]),
        ("--report_to nonsense", ["nonsense"]),
        ("--collapse_action stop --eval_strategy no", ["`collapse_action=stop`", "`eval_strategy`"]),
        ("--collapse_action switch --objective jepa", ["`collapse_action=switch`"]),
        ("--dataloader_drop_last true --per_device_train_batch_size 5000", ["`dataloader_drop_last`"]),
        ("--max_steps 0", ["`max_steps`"]),
        ("""--accelerator_config '{"split_batches": true}'""", ["`split_batches`"]),
        ("--seed 1 recipes/quickstart.yaml", ["A recipe comes first"]),
    ],
)
def test_argument_that_cannot_work(refused, text_file, words, parts):
    message = refused("--train_file", text_file, *shlex.split(words))
    assert all(part in message for part in parts), message


def test_fp16_without_a_gpu(refused, text_file):
    if torch.accelerator.is_available():
        pytest.skip("There is a GPU.")
    assert "`fp16`" in refused("--train_file", text_file, "--fp16", "true")


def test_streaming_does_not_know_its_length(tmp_path, text_file, capfd):
    words = [
        "--streaming",
        "--tokenizer_name",
        "any",
        "--train_file",
        text_file,
        "--output_dir",
        str(tmp_path / "run"),
    ]
    assert main(words) == 2
    assert "`max_steps`" in capfd.readouterr().err


def test_init_from_a_training_checkpoint(tmp_path, text_file, capfd):
    training.model().save_pretrained(tmp_path / "checkpoint-2")
    words = ["--init_from", str(tmp_path / "checkpoint-2"), "--train_file", text_file]
    assert main([*words, "--output_dir", str(tmp_path / "run"), "--max_seq_length", "32"]) == 2
    assert "is a training checkpoint" in capfd.readouterr().err


def test_init_from_nowhere_is_named(tmp_path, text_file, capfd):
    words = ["--init_from", str(tmp_path / "nowhere"), "--train_file", text_file]
    assert main([*words, "--output_dir", str(tmp_path / "run")]) == 2
    assert "error: `init_from`" in capfd.readouterr().err


SMALL = ["--max_seq_length", "32", "--min_context_tokens", "4", "--predictor_num_hidden_layers", "1"]


def test_tokenizer_of_another_encoder(tmp_path, text_file, capfd):
    """Of fitting size, but the special tokens have other numbers."""
    other = training.model(objective="mlm", encoder=training.encoder_config(pad_token_id=7))
    other.masked_lm.save_pretrained(tmp_path / "other")
    training.tokenizer().save_pretrained(tmp_path / "tokenizer")
    words = ["--init_from", str(tmp_path / "other"), "--tokenizer_name", str(tmp_path / "tokenizer")]
    assert main([*words, "--train_file", text_file, "--output_dir", str(tmp_path / "run"), *SMALL]) == 2
    assert "`pad_token_id` is 0" in capfd.readouterr().err


def test_half_precision_checkpoint_is_trained_in_float32(tmp_path, text_file):
    trained = training.model(objective="mlm").masked_lm.to(torch.bfloat16)
    trained.save_pretrained(tmp_path / "half")
    training.tokenizer().save_pretrained(tmp_path / "half")
    words = ["--init_from", str(tmp_path / "half"), "--train_file", text_file, "--max_steps", "2", *SMALL]
    options = ["--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "4", "--eval_strategy", "no"]
    assert main([*words, *options]) == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["dtype"] == "float32"


def test_output_directory_with_foreign_files(refused, text_file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/README.md").write_text("mine")
    assert "README.md" in refused("--train_file", text_file)
    assert (tmp_path / "run/README.md").read_text() == "mine"


def test_output_directory_below_a_file(text_file, tmp_path):
    (tmp_path / "file").write_text("x")
    assert main(["--train_file", text_file, "--output_dir", str(tmp_path / "file/run"), *TINY]) == 2


def test_resuming_into_the_directory_of_another_run(tmp_path, text_file, capfd):
    for name in ("one", "two"):
        assert main(["--train_file", text_file, "--output_dir", str(tmp_path / name), *TINY]) == 0
    before = fingerprint(tmp_path / "two")
    words = ["--train_file", text_file, "--output_dir", str(tmp_path / "two"), *TINY]
    assert main([*words, "--resume_from_checkpoint", str(tmp_path / "one/checkpoint-2")]) == 2
    assert "`output_dir`" in capfd.readouterr().err
    assert fingerprint(tmp_path / "two") == before


def test_resuming_on_other_data(tmp_path, text_file, capfd):
    words = ["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY]
    assert main(words) == 0
    Path(text_file).write_text("\n".join(reversed(training.corpus())), encoding="utf-8")
    assert main([*words, "--resume_from_checkpoint", "true"]) == 2
    assert "`train_file`" in capfd.readouterr().err


def test_nan_in_the_last_steps_is_not_exported(tmp_path, text_file, capfd, poison_after):
    poison_after(3)
    words = ["--save_strategy", "no", "--logging_steps", "100", "--eval_strategy", "no"]
    assert main(["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY, *words]) == 1
    assert "not finite at step 4" in capfd.readouterr().err
    assert not (tmp_path / "run/model.safetensors").exists()


def test_secret_is_not_written_anywhere(tmp_path, text_file, capfd):
    words = ["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY, "--hub_token", "hf_secret"]
    assert main(words) == 0
    texts = [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".json", ".yaml", ".md", ".txt")]
    assert len(texts) > 5
    assert not any("hf_secret" in path.read_text(encoding="utf-8") for path in texts)
    assert "hf_secret" not in "".join(capfd.readouterr())


def test_checkpoint_of_another_number_of_processes(tmp_path, text_file, capfd):
    """As many processes make a batch as large: a run that goes on with one would train on half of it."""
    words = ["--train_file", text_file, "--output_dir", str(tmp_path / "run"), *TINY]
    assert main([*words, "--save_steps", "2"]) == 0
    (newest,) = checkpoints_in(tmp_path / "run")[-1:]
    recipe = json.loads((newest / "recipe.json").read_text())
    assert recipe["world_size"] == 1
    (newest / "recipe.json").write_text(json.dumps(recipe | {"world_size": 2}))
    (newest / "checksums.json").unlink(missing_ok=True)
    capfd.readouterr()
    resume = [*words, "--resume_from_checkpoint", str(newest)]
    assert main(resume) == 2
    assert "`world_size` was 2 and is now 1" in capfd.readouterr().err
