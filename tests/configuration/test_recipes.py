from pathlib import Path
from typing import Any

import pytest

from predrec.configuration import DataArguments, ModelArguments, parse_recipe, read_recipe, write_recipe
from predrec.errors import UserError
from predrec.trainers import PredRecTrainingArguments

KINDS = (ModelArguments, DataArguments, PredRecTrainingArguments)


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(recipe: str | None, *argv: str) -> tuple[list[Any], dict[str, Any]]:
    """Parses a recipe's text and command-line words; the output directory is always given."""
    if recipe is None:
        return parse_recipe(["--output_dir", "out", *argv], KINDS)
    Path("recipe.yaml").write_text("output_dir: out\n" + recipe, encoding="utf-8")
    return parse_recipe(["recipe.yaml", *argv], KINDS)


def value_of(name: str, recipe: str | None, *argv: str) -> Any:
    """Returns the value that an argument ends up with, whichever dataclass it belongs to."""
    arguments, _ = parse(recipe, *argv)
    return next(getattr(kind, name) for kind in arguments if hasattr(kind, name))


# Values


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("learning_rate: 5e-5", 5e-5),
        ("learning_rate: 0.001", 0.001),
        ("hidden_size: 64", 64),
        ("bf16: true", True),
        ("packing: false", False),
        ("packing: no", False),
        ("packing: True", True),
        ("save_strategy: no", "no"),
        ("eval_strategy: 'no'", "no"),
        ("text_column: '5'", "5"),
        ("text_column: 1.10", "1.10"),
        ("text_column: -x", "-x"),
        ("run_name: ''", ""),
        ("text_column: 'null'", "null"),
        ("text_column: with two spaces", "with two spaces"),
        ("tokenizer_name: über/größe", "über/größe"),
        ("train_file: [a.txt, b.txt]", ["a.txt", "b.txt"]),
        ("train_file: a.txt", ["a.txt"]),
        ("train_file: []", []),
        ("context_scale: [0.6, 0.8]", [0.6, 0.8]),
        ("validation_file:\n- a\n- b", ["a", "b"]),
        ("tokenizer_name: null", None),
        ("tokenizer_name: ~", None),
        ("tokenizer_name:", None),
        ("masking_unit: span", "span"),
        ("resume_from_checkpoint: true", True),
    ],
)
def test_parse_recipe_reads_values(line, expected):
    assert value_of(line.split(":")[0], line) == expected


def test_parse_recipe_reads_mappings():
    recipe = "encoder_config:\n  head_layer_norm_eps: 1e-1\n  hidden_act: relu\n  scale_embeddings: true\n"
    expected = {"head_layer_norm_eps": 0.1, "hidden_act": "relu", "scale_embeddings": True}
    assert value_of("encoder_config", recipe) == expected


def test_parse_recipe_reads_nested_mappings():
    recipe = "lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 0.5, list: [1, no, 2.5]}\n"
    assert value_of("lr_scheduler_kwargs", recipe) == {"num_cycles": 0.5, "list": [1, "no", 2.5]}


@pytest.mark.parametrize("value", ["null", "~", "", "[]"])
def test_no_value_is_refused_where_the_default_is_one(value):
    with pytest.raises(UserError, match="`save_total_limit` takes a value; leave the line out for the default, 2"):
        parse(f"save_total_limit: {value}\n")


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n"])
def test_parse_recipe_reads_an_empty_recipe(text):
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    arguments, resolved = parse_recipe(["recipe.yaml", "--output_dir", "out"], KINDS)
    assert resolved == {"output_dir": "out"}
    assert arguments[1] == DataArguments()


def test_parse_recipe_works_without_a_recipe():
    assert value_of("hidden_size", None, "--hidden_size", "64") == 64


def test_parse_recipe_returns_one_instance_per_dataclass():
    arguments, _ = parse("")
    assert tuple(map(type, arguments)) == KINDS


# The command line


@pytest.mark.parametrize(
    ("name", "recipe", "argv", "expected"),
    [
        ("hidden_size", "hidden_size: 64", ["--hidden_size", "128"], 128),
        ("hidden_size", "hidden_size: 64", ["--hidden_size=128"], 128),
        ("hidden_size", "hidden_size: 64", ["--hidden-size", "128"], 128),
        ("context_scale", "context_scale: [0.6, 0.8]", ["--context_scale", "0.7", "0.9"], [0.7, 0.9]),
        ("packing", "packing: true", ["--no_packing"], False),
        ("packing", "packing: true", ["--no-packing"], False),
        ("packing", "", ["--packing", "false"], False),
        ("packing", "packing: false", ["--packing"], True),
        ("bf16", "bf16: true", ["--bf16", "false"], False),
        ("bf16", "", ["--bf16"], True),
        ("encoder_config", "", ["--encoder_config", '{"head_layer_norm_eps": 0.1}'], {"head_layer_norm_eps": 0.1}),
    ],
)
def test_parse_recipe_lets_the_command_line_win(name, recipe, argv, expected):
    assert value_of(name, recipe, *argv) == expected


DATA = "train_file: [a.jsonl]\nvalidation_file: [v.jsonl]\ntext_column: body\nsample_by: document\n"


@pytest.mark.parametrize("argv", [["--train_file", "c.txt"], ["--train_file=c.txt"]])
def test_parse_recipe_replaces_the_whole_data_source_by_files(argv):
    _, resolved = parse(DATA + "hidden_size: 64\n", *argv)
    assert resolved == {"output_dir": "out", "train_file": ["c.txt"], "hidden_size": 64}


def test_parse_recipe_replaces_the_whole_data_source_by_a_dataset():
    _, resolved = parse(DATA, "--dataset_name", "some/data")
    assert resolved == {"output_dir": "out", "dataset_name": "some/data"}


def test_parse_recipe_replaces_a_dataset_by_files():
    _, resolved = parse("dataset_name: some/data\ndataset_config_name: en\nstreaming: true\n", "--train_file", "c.txt")
    assert resolved == {"output_dir": "out", "train_file": ["c.txt"]}


def test_parse_recipe_keeps_what_the_command_line_says_about_a_new_source():
    _, resolved = parse(DATA, "--text_column", "words", "--train_file", "c.jsonl")
    assert resolved == {"output_dir": "out", "train_file": ["c.jsonl"], "text_column": "words"}


def test_parse_recipe_keeps_the_source_when_only_a_detail_changes():
    _, resolved = parse(DATA, "--validation_file", "w.txt")
    assert resolved["train_file"] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("recipe", "argv", "expected"),
    [
        (
            "train_tokenizer: true\nvocab_size: 1000\n",
            ["--tokenizer_name", "some/tokenizer"],
            {"tokenizer_name": "some/tokenizer"},
        ),
        ("tokenizer_name: some/tokenizer\n", ["--train_tokenizer"], {"train_tokenizer": True}),
    ],
)
def test_parse_recipe_replaces_the_whole_tokenizer(recipe, argv, expected):
    _, resolved = parse(recipe, *argv)
    assert resolved == {"output_dir": "out"} | expected


@pytest.mark.parametrize(
    ("recipe", "argv", "expected"),
    [
        (
            "predictor_hidden_size: 64\ntarget_scale: [0.1, 0.2]\nloss_lambda: 0.2\n",
            ["--jepa_view", "crops"],
            {"jepa_view": "crops", "loss_lambda": 0.2},
        ),
        ("jepa_view: crops\ncrop_length: [4, 8]\n", ["--jepa_view=blocks"], {"jepa_view": "blocks"}),
        (
            "mlm_view: context\njepa_dropout: 0.5\njepa_start: 0.5\ncollapse_action: switch\n",
            ["--objective", "mlm"],
            {"objective": "mlm"},
        ),
        ("collapse_action: stop\n", ["--objective", "mlm"], {"objective": "mlm", "collapse_action": "stop"}),
        ("jepa_dropout: 0.5\n", ["--objective", "hybrid"], {"objective": "hybrid", "jepa_dropout": 0.5}),
        (
            "jepa_view: crops\ncrop_length: [4, 8]\n",
            ["--jepa_view", "crops"],
            {"jepa_view": "crops", "crop_length": [4, 8]},
        ),
        ("jepa_view: blocks\ntarget_scale: [0.1, 0.2]\n", ["--jepa-view", "crops"], {"jepa_view": "crops"}),
        *(
            ("whiten_targets: true\nwhiten_epsilon: 0.1\n", words, {"whiten_targets": True, "whiten_epsilon": 0.1})
            for words in (["--whiten_targets"], ["--whiten_targets", "yes"], ["--whiten-targets=1"])
        ),
        *(
            ("whiten_targets: true\nwhiten_epsilon: 0.1\n", ["--whiten_targets", word], {"whiten_targets": False})
            for word in ("false", "no", "0")
        ),
        ("metric_for_best_model: eval_jepa_loss\n", ["--objective", "mlm"], {"objective": "mlm"}),
        ("metric_for_best_model: eval_mlm_accuracy\n", ["--objective", "jepa"], {"objective": "jepa"}),
        (
            "metric_for_best_model: eval_mlm_accuracy\n",
            ["--objective", "mlm"],
            {"objective": "mlm", "metric_for_best_model": "eval_mlm_accuracy"},
        ),
        (
            "position_embedding_type: rotary\nrotary_base: 500\n",
            ["--position_embedding_type", "sinusoidal"],
            {"position_embedding_type": "sinusoidal"},
        ),
        (
            "position_embedding_type: rotary\nrotary_base: 500\n",
            ["--position_embedding_type", "rotary"],
            {"position_embedding_type": "rotary", "rotary_base": 500.0},
        ),
    ],
)
def test_parse_recipe_drops_what_has_no_meaning_with_a_choice(recipe, argv, expected):
    _, resolved = parse(recipe, *argv)
    assert resolved == {"output_dir": "out"} | expected


def test_parse_recipe_refuses_what_the_command_line_says_beside_a_choice():
    with pytest.raises(UserError, match="`jepa_dropout` needs `objective=hybrid`"):
        parse("jepa_dropout: 0.5\n", "--jepa_dropout", "0.25", "--objective", "mlm")


def test_parse_recipe_drops_the_encoder_when_init_from_brings_one():
    recipe = (
        "model_type: bert\nhidden_size: 64\nnum_attention_heads: 4\nencoder_config: {classifier_dropout: 0.1}\n"
        "tokenizer_name: some/tokenizer\nobjective: mlm\nmax_seq_length: 64\n"
    )
    _, resolved = parse(recipe, "--init_from", "some/model")
    assert resolved == {"output_dir": "out", "init_from": "some/model", "objective": "mlm", "max_seq_length": 64}


# The resolved recipe


def test_parse_recipe_returns_what_was_given():
    _, resolved = parse("learning_rate: 1e-3\npacking: true\nsave_strategy: no\n", "--no_packing", "--seed", "7")
    assert resolved == {
        "output_dir": "out",
        "packing": False,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "seed": 7,
    }


@pytest.mark.parametrize(
    "recipe",
    [
        "",
        "learning_rate: 5e-5\neval_strategy: no\nsave_strategy: no\n",
        "train_file: [a.txt, b.txt]\ntokenizer_name: null\ncontext_scale: [0.6, 0.8]\n",
        "encoder_config: {head_layer_norm_eps: 1e-1, hidden_act: relu}\n",
        "packing: false\nbf16: true\ntext_column: '007'\ndataset_name: 'null-ish'\n",
        "tokenizer_name: über/größe\nlr_scheduler_kwargs: {num_cycles: 0.5}\nreport_to: none\n",
        "run_name: ''\nlr_scheduler_kwargs: {num_cycles: null, power: ~}\n",
    ],
)
def test_write_recipe_is_read_back_to_the_same_arguments(recipe):
    first, resolved = parse(recipe)
    write_recipe("resolved.yaml", resolved)
    second, resolved_again = parse_recipe(["resolved.yaml"], KINDS)
    assert resolved_again == resolved
    assert first[:2] == second[:2]
    assert first[2].to_dict() == second[2].to_dict()


def test_write_recipe_writes_readable_yaml():
    write_recipe(
        "resolved.yaml", {"output_dir": "out", "name": "größe", "save_strategy": "no"}, comment="From a test."
    )
    expected = "# From a test.\noutput_dir: out\nname: größe\nsave_strategy: 'no'\n"
    assert Path("resolved.yaml").read_text(encoding="utf-8") == expected


# Errors


@pytest.mark.parametrize(
    ("recipe", "argv", "message"),
    [
        ("hiden_size: 3", [], r"`hiden_size` in the recipe 'recipe.yaml'; did you mean `hidden_size`\?"),
        ("hidden-size: 3", [], r"`hidden-size` in the recipe 'recipe.yaml'; did you mean `hidden_size`\?"),
        ("qqqq: 3", [], r"Unknown argument `qqqq` in the recipe 'recipe.yaml'\.$"),
        (
            None,
            ["--hiden_size", "3"],
            r"Unknown argument `hiden_size` in the command line; did you mean `hidden_size`",
        ),
        (None, ["--hiden-size=3"], r"Unknown argument `hiden_size` in the command line; did you mean `hidden_size`\?"),
        (None, ["--qqqq"], r"Unknown argument `qqqq` in the command line\.$"),
        (None, ["--hidden_siz", "64"], r"Unknown argument `hidden_siz` in the command line; did you mean"),
        (None, ["--learning", "1"], r"Unknown argument `learning` in the command line"),
        (None, ["stray"], r"Unrecognized arguments: stray"),
        (None, ["--hidden_size"], r"Argument --hidden_size/--hidden-size: expected one argument"),
        ("hidden_size: wide", [], r"Argument --hidden_size/--hidden-size: invalid int value: 'wide'"),
        ("hidden_size: 64.5", [], r"Argument --hidden_size/--hidden-size: invalid int value: '64.5'"),
        ("learning_rate: fast", [], r"Argument --learning_rate/--learning-rate: invalid float value: 'fast'"),
        ("packing: maybe", [], r"Argument --packing: Truthy value expected: got maybe"),
        ("seed: {a: 1}", [], r"Argument --seed: invalid int value"),
        ("masking_unit: letter", [], r"invalid choice: 'letter' \(choose from 'token', 'word', 'span'\)"),
        ("sample_by: page", [], r"invalid choice: 'page'"),
        ("objective: both", [], r"Argument --objective: invalid choice: 'both'"),
        ("hidden_size: [64, 128]", [], r"`hidden_size` takes one value, not the list \['64', '128'\]"),
        ("train_file: {a: b}", [], r"`train_file` takes a list, not a mapping"),
        ("encoder_config: {hidden_size: wide}", [], r"field 'hidden_size'"),
        ("encoder_config: {hiden_size: 64}", [], r"`hiden_size` is not a field of PredRecConfig; did you mean"),
        ("encoder_config: wide", [], r"`encoder_config` is not JSON"),
        ("mlm_probability: 2", [], r"`mlm_probability` is 2.0; it must be above 0 and at most 1"),
        ("jepa_temperature: 0", [], r"`jepa_temperature` is 0.0; it must be positive"),
        ("ema_decay: 1.5", [], r"`ema_decay` is 1.5; it must be in \[0, 1\]"),
        (None, ["--train_file", "a", "--dataset_name", "b"], r"`dataset_name` and `train_file` are both given"),
        ("init_from: some/model\nhidden_size: 64", [], r"`init_from` brings its own encoder: drop `hidden_size`"),
    ],
)
def test_parse_recipe_explains_errors(recipe, argv, message):
    with pytest.raises(UserError, match=message):
        parse(recipe, *argv)


def test_parse_recipe_asks_for_the_output_directory():
    with pytest.raises(UserError, match="`output_dir` is missing"):
        parse_recipe([], KINDS)


def test_read_recipe_names_a_missing_file():
    with pytest.raises(UserError, match=r"The recipe 'absent.yaml' does not exist"):
        read_recipe("absent.yaml")


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "a: 'b"])
def test_read_recipe_names_a_file_that_is_not_yaml(text):
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"The recipe 'recipe.yaml' cannot be read: .*line 1"):
        read_recipe("recipe.yaml")


def test_read_recipe_names_a_file_that_is_not_text():
    Path("recipe.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"The recipe 'recipe.yaml' cannot be read: 'utf-8' codec"):
        read_recipe("recipe.yaml")


def test_read_recipe_names_a_directory():
    with pytest.raises(UserError, match=r"The recipe '\.' cannot be read"):
        read_recipe(".")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "5"])
def test_read_recipe_refuses_what_is_not_a_mapping(text):
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"The recipe 'recipe.yaml' must be a mapping of argument names to values"):
        read_recipe("recipe.yaml")
