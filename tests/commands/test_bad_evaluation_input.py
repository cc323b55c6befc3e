"""Every mistake in the commands that evaluate gets exit code 2 and one error that says what to do."""

import pytest

from predrec.commands import main as console
from predrec.configuration.help_screens import SCREENS

from . import planted

EVALUATE = ("probe_glue", "analyze_representations", "evaluate_sts")
TASK = {"probe_glue": "sst2", "analyze_representations": "sst2", "evaluate_sts": "stsb"}


@pytest.fixture
def refused(refusal, tmp_path, data_dir):
    """Runs a command through the console command, expects that it leaves no results, and returns the message."""

    def run(name: str, *words: str, task: str | None = None) -> str:
        common = ["--data_dir", data_dir, "--output_dir", tmp_path / "run", "--num_threads", "1"]
        message = refusal(console.main, SCREENS[name].name, *common, "--tasks", task or TASK[name], *words)
        assert not (tmp_path / "run" / "results.json").exists()
        return message

    return run


@pytest.fixture
def model(encoder_dir) -> list[str]:
    return ["--models", f"tiny={encoder_dir}"]


@pytest.mark.parametrize(
    ("name", "task", "nearest"),
    [
        ("probe_glue", "sst-2", "sst2"),
        ("analyze_representations", "colla", "cola"),
        ("evaluate_sts", "sts-b", "stsb"),
    ],
)
def test_unknown_task_has_its_nearest_name(refused, model, name, task, nearest):
    assert f"Unknown task `{task}`; did you mean `{nearest}`?" in refused(name, *model, task=task)


@pytest.mark.parametrize("name", EVALUATE)
def test_missing_data_dir_is_named(refused, model, tmp_path, name):
    message = refused(name, *model, "--data_dir", str(tmp_path / "nowhere"))
    assert "`data_dir`" in message and str(tmp_path / "nowhere") in message


@pytest.mark.parametrize("name", EVALUATE)
def test_data_dir_without_the_task_names_the_task(refused, model, tmp_path, name):
    planted.write_task(tmp_path / "data", "mrpc")
    message = refused(name, *model, "--data_dir", str(tmp_path / "data"))
    assert f"for the task `{TASK[name]}`" in message


def test_missing_training_split_is_named(refused, model, tmp_path):
    (tmp_path / "data").mkdir()
    planted.write_task(tmp_path / "data", "sst2")
    (tmp_path / "data" / "sst2" / "train.parquet").unlink()
    assert "`sst2` has no `train` split" in refused("probe_glue", *model, "--data_dir", str(tmp_path / "data"))


@pytest.mark.parametrize("name", EVALUATE)
def test_label_out_of_range_is_named(refused, model, tmp_path, name):
    for split in ("train", "validation"):
        planted.write_split(tmp_path / "data", "sst2", split, {"sentence": ["a", "the"], "label": [0, -1]})
        columns = {"sentence1": ["a", "the"], "sentence2": ["a", "the"], "label": [0.0, -1.0]}
        planted.write_split(tmp_path / "data", "stsb", split, columns)
    assert "the label is -1" in refused(name, *model, "--data_dir", str(tmp_path / "data"))


@pytest.mark.parametrize("name", EVALUATE)
def test_unknown_pooling_lists_the_known(refused, model, name):
    message = refused(name, *model, "--pooling", "average")
    assert "`pooling` 'average' is not one of mean, max" in message


@pytest.mark.parametrize("name", EVALUATE)
def test_model_directory_that_does_not_exist_is_named(refused, tmp_path, name):
    message = refused(name, "--models", f"tiny={tmp_path / 'nowhere'}")
    assert "Cannot load an encoder" in message and "nowhere" in message


@pytest.mark.parametrize("name", EVALUATE)
def test_empty_model_directory_is_named(refused, tmp_path, name):
    (tmp_path / "empty").mkdir()
    assert "Cannot load an encoder" in refused(name, "--models", f"tiny={tmp_path / 'empty'}")


@pytest.mark.parametrize("name", EVALUATE)
def test_second_replicate_that_does_not_exist_is_named(refused, encoder_dir, tmp_path, name):
    assert "nowhere" in refused(name, "--models", f"tiny={encoder_dir},{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("name", EVALUATE)
@pytest.mark.parametrize("models", [["tiny=one", "tiny=two"], ["folder/tiny", "other/tiny"]], ids=["named", "folders"])
def test_name_given_twice_is_refused(refused, name, models):
    assert "each name must come once" in refused(name, "--models", *models)


@pytest.mark.parametrize("name", EVALUATE)
@pytest.mark.parametrize("word", ["=folder", "tiny="])
def test_model_without_name_or_directory_is_refused(refused, name, word):
    assert f"`models`: '{word}' must be name=DIR" in refused(name, "--models", word)


@pytest.mark.parametrize("word", ["tiny={0},", "tiny=,{0}"], ids=["end", "start"])
def test_comma_without_a_directory_is_refused(refused, encoder_dir, word):
    assert "`models`" in refused("probe_glue", "--models", word.format(encoder_dir))


@pytest.mark.parametrize("name", EVALUATE)
def test_no_model_is_refused(refused, name):
    assert "Give `models` (name=DIR ...) or `model_name_or_path`" in refused(name)


@pytest.mark.parametrize("name", EVALUATE)
def test_both_ways_to_give_a_model_are_refused(refused, model, encoder_dir, name):
    message = refused(name, *model, "--model_name_or_path", str(encoder_dir))
    assert "one of them" in message


@pytest.mark.parametrize("name", EVALUATE)
def test_both_ways_to_give_a_task_are_refused(refused, model, name):
    assert "Give `tasks` or `task_name`" in refused(name, *model, "--task_name", TASK[name])


@pytest.mark.parametrize("name", EVALUATE)
@pytest.mark.parametrize("option", ["max_seq_length", "num_attention_draws", "num_threads"])
def test_number_below_one_is_refused(refused, model, name, option):
    assert f"`{option}` is 0; it must be at least 1." in refused(name, *model, f"--{option}", "0")


@pytest.mark.parametrize("option", ["seeds", "mlp_size"])
def test_probe_of_nothing_is_refused(refused, model, option):
    assert f"`{option}` is 0; it must be at least 1." in refused("probe_glue", *model, f"--{option}", "0")


@pytest.mark.parametrize("value", ["1", "-0.1", "nan"])
def test_dropout_out_of_range_is_refused(refused, model, value):
    assert "`dropout`" in refused("probe_glue", *model, f"--dropout={value}")


@pytest.mark.parametrize("words", [["--mode", "tune"], ["--head", "cubic"]], ids=" ".join)
def test_unknown_choice_lists_the_known(refused, model, words):
    assert words[1] in refused("probe_glue", *model, *words)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("per_device_train_batch_size", "0"),
        ("per_device_train_batch_size", "-1"),
        ("learning_rate", "-1"),
        ("weight_decay", "-1"),
        ("seed", "-1"),
    ],
)
def test_training_that_cannot_be_is_refused(refused, model, option, value):
    assert f"`{option}`" in refused("probe_glue", *model, f"--{option}={value}")


def test_one_example_is_refused(refused, model):
    assert "`num_examples` is 1" in refused("analyze_representations", *model, "--num_examples", "1")


@pytest.mark.parametrize("name", EVALUATE)
def test_no_evaluation_row_is_refused(refused, model, name):
    assert "must be at least 1" in refused(name, *model, "--max_eval_samples", "0")


@pytest.mark.parametrize("name", EVALUATE)
def test_argument_of_another_command_is_refused(refused, model, name):
    assert "Unknown argument `train_file`" in refused(name, *model, "--train_file", "x.txt")


@pytest.mark.parametrize("name", EVALUATE)
def test_weights_that_are_not_finite_are_reported(refused, last_norm, name):
    message = refused(name, "--models", f"tiny={last_norm(float('nan'), 0.0)}")
    assert "not finite" in message and "The encoder is broken" in message


def test_error_begins_a_line_of_its_own(last_norm, data_dir, tmp_path, capsys):
    """Not behind the progress bar of the encoding that it ends."""
    common = ["--data_dir", str(data_dir), "--output_dir", str(tmp_path / "run"), "--num_threads", "1"]
    assert console.main(["sts", *common, "--models", f"tiny={last_norm(float('nan'), 0.0)}"]) == 2
    assert any(line.startswith("error: ") for line in capsys.readouterr().err.splitlines())


@pytest.mark.parametrize("name", EVALUATE)
def test_weights_that_are_not_finite_are_not_kept(refused, last_norm, tmp_path, name):
    refused(name, "--models", f"tiny={last_norm(float('nan'), 0.0)}")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


@pytest.mark.parametrize("words", [[], ["--head", "mlp"], ["--pooling", "attention-trained"]], ids=str)
@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_heads_that_diverge_are_reported(refused, model, task, words):
    options = ["--learning_rate", "1e38", "--num_train_epochs", "3", "--seeds", "1"]
    message = refused("probe_glue", *model, *options, *words, task=task)
    assert f"The heads of `{task}` diverged: lower `learning_rate`." in message


def test_heads_that_diverge_are_not_saved(refused, model, tmp_path):
    refused("probe_glue", *model, "--learning_rate", "1e38", "--num_train_epochs", "3", "--seeds", "1")
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.parametrize("task", ["sst2", "stsb"])
def test_fine_tuning_that_diverges_is_reported(refused, model, task):
    options = ["--mode", "finetune", "--learning_rate", "1e38", "--max_steps", "3", "--seeds", "1"]
    message = refused("probe_glue", *model, *options, "--disable_tqdm", "true", task=task)
    assert "diverged" in message and "`learning_rate`" in message
