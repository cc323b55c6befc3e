"""The folder that goes to the Hub: exactly what belongs there, without a trace of this machine, and checked."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, parse_eval_result_entries
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, LlamaConfig, LlamaForCausalLM
from yaml import safe_dump, safe_load

from predrec.commands import export
from predrec.configuration import write_recipe
from predrec.errors import UserError
from predrec.publish.repository import (
    ABSOLUTE_PATH,
    MARK,
    _incomplete,
    assemble,
    published_files,
    tree,
    validate,
    without_absolute_paths,
)

from .runs import CODE, FILES, MEASURED, copied, evaluated_run, files_in, finished_run

TOKEN = "hf_" + "a" * 34


@pytest.fixture
def folder(tmp_path):
    """Where to assemble."""
    return tmp_path / "out" / "folder"


@pytest.fixture
def refused(run, folder):
    """Assembles the run, expects a `UserError`, and returns its message."""

    def assembling(**options) -> str:
        with pytest.raises(UserError) as error:
            assemble(**({"source": run, "folder": folder, "repo_id": "me/tiny"} | options))
        return str(error.value)

    return assembling


def change_weights(run, change) -> None:
    tensors = load_file(run / "model.safetensors")
    change(tensors)
    save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})


# What is in it


@pytest.mark.parametrize(("model_type", "code"), [("predrec", CODE), ("bert", set())])
def test_assemble_takes_exactly_the_files_of_a_run(folder, model_type, code):
    assemble(finished_run(model_type), folder, "me/tiny")
    assert files_in(folder) == FILES | code | {MARK}


def test_assemble_takes_results_and_pictures_of_an_evaluated_run(folder):
    assemble(evaluated_run(), folder, "me/tiny")
    pictures = {name for name in files_in(evaluated_run()) if name.startswith("figures/")}
    assert pictures and files_in(folder) == FILES | CODE | MEASURED | pictures | {MARK}


def test_assemble_leaves_out_checkpoints_pickles_and_logs(run, folder):
    strays = ["checkpoint-2/model.safetensors", "checkpoint-2/optimizer.pt", "pytorch_model.bin", "training_args.bin"]
    strays += [
        "optimizer.pt",
        "rng_state.pth",
        "train.log",
        "runs/events.out",
        "trainer_state.json",
        ".env",
        "nohup.out",
    ]
    strays += ["figures/data.csv", ".git/config", "figures/deeper/a.png", "predictions.npz", "1_Pooling/weights.bin"]
    for name in strays:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(b"x")
    assemble(run, folder, "me/tiny")
    assert files_in(folder) == FILES | CODE | {MARK}


def test_assemble_copies_weights_and_pictures_byte_by_byte(run, folder):
    assemble(run, folder, "me/tiny")
    for name in ("model.safetensors", "training_curves.png", "tokenizer.json", "modeling_predrec.py"):
        assert (folder / name).read_bytes() == (run / name).read_bytes()


def test_assemble_leaves_the_run_as_it_is(run, folder):
    before = {name: (run / name).read_bytes() for name in files_in(run)}
    assemble(run, folder, "me/tiny", "mit")
    assert {name: (run / name).read_bytes() for name in files_in(run)} == before


def test_assemble_copies_what_a_link_points_at(run, folder, tmp_path):
    shutil.move(run / "model.safetensors", tmp_path / "blob")
    (run / "model.safetensors").symlink_to(tmp_path / "blob")
    assemble(run, folder, "me/tiny")
    assert not (folder / "model.safetensors").is_symlink()
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "blob").read_bytes()


def test_assemble_takes_weights_in_several_files(run, folder):
    AutoModelForMaskedLM.from_pretrained(run).save_pretrained(run, max_shard_size="8KB")
    (run / "model.safetensors").unlink()
    assemble(run, folder, "me/tiny")
    shards = {name for name in files_in(folder) if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name)}
    assert len(shards) > 1 and "model.safetensors.index.json" in files_in(folder)
    expected = AutoModelForMaskedLM.from_pretrained(finished_run()).state_dict()
    found = AutoModelForMaskedLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    "format", ["transformers", "sentence-transformers", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_assemble_takes_what_export_writes(folder, tmp_path, format):
    if format == "sentence-transformers":
        pytest.importorskip("sentence_transformers")
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    exported = tmp_path / "exported"
    assert export.main([str(finished_run()), "--format", format, "--output_dir", str(exported)]) == 0
    assemble(exported, folder, "me/tiny")
    assert files_in(folder) == files_in(exported) | {MARK}


def test_assemble_takes_a_stock_encoder_for_sentence_transformers(folder, tmp_path):
    pytest.importorskip("sentence_transformers")
    exported, words = tmp_path / "exported", ["--format", "sentence-transformers"]
    assert export.main([str(finished_run("bert")), *words, "--output_dir", str(exported)]) == 0
    assemble(exported, folder, "me/tiny")
    assert files_in(folder) == files_in(exported) | {MARK}


def test_assemble_needs_a_card_of_an_export(folder, tmp_path):
    exported = tmp_path / "exported"
    assert export.main([str(finished_run()), "--format", "transformers", "--output_dir", str(exported)]) == 0
    (exported / "README.md").unlink()
    with pytest.raises(UserError, match=r"lacks README\.md"):
        assemble(exported, folder, "me/tiny")


def test_tree_shows_every_file_with_its_size(assembled):
    lines = tree(assembled).splitlines()
    assert [line.split()[-1] for line in lines] == sorted(FILES | CODE)
    assert f"{(assembled / 'tokenizer_config.json').stat().st_size} B  tokenizer_config.json" in tree(assembled)


# The card


def test_assemble_makes_the_examples_load_the_repository(run, folder):
    assemble(run, folder, "me/tiny")
    assert re.findall(r"^directory = .*$", (folder / "README.md").read_text(), re.MULTILINE) == [
        'directory = "me/tiny"'
    ]


def test_assemble_puts_the_licence_into_metadata_and_section(run, folder):
    assemble(run, folder, "me/tiny", "apache-2.0")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0" and "\n## Licence\n\napache-2.0\n" in card.text
    assert "None was given" not in card.text


def test_assemble_without_a_licence_says_so(run, folder):
    assemble(run, folder, "me/tiny")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license is None and "\n## Licence\n\nNone was given.\n" in card.text


def test_assemble_keeps_the_metadata(folder):
    assemble(evaluated_run(), folder, "me/tiny", "mit")
    before, after = (ModelCard.load(path / "README.md").data.to_dict() for path in (evaluated_run(), folder))
    assert before["model-index"] and after == before | {"license": "mit"}


def test_assemble_keeps_the_results_readable(folder):
    assemble(evaluated_run(), folder, "me/tiny")
    entries = parse_eval_result_entries(safe_load((folder / ".eval_results/glue.yaml").read_text()))
    assert {entry.task_id for entry in entries} == {"sst2", "stsb"}
    assert json.loads((folder / "results.json").read_text())["records"]


# Traces of the machine


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train_file: /home/x/data/corpus.txt", "train_file: corpus.txt"),
        ("- /home/x/runs/a/\n", "- a\n"),
        ('"folder": "/tmp/runs/a",', '"folder": "a",'),
        ("`/a/b`, (/c/d) and /e/f.", "`b`, (d) and f."),
        ("--models a=/home/x/a b=/home/x/b --o=/mnt/y", "--models a=a b=b --o=y"),
        ("/usr/bin:/home/x/bin", "bin:bin"),
        ("x@host:/home/x/y", "x@host:y"),
        ("[a](/home/x/y.png)", "[a](y.png)"),
        ("[/home/x/a, /home/x/b]", "[a, b]"),
        ("/home//x/y", "y"),
        ("/home/x/run=1/[a]/step.txt", "step.txt"),
        ("/home/jürgen/Texte.txt", "Texte.txt"),
        ("/data/x/*.txt", "*.txt"),
        ("file:///home/x/y.txt", "y.txt"),
        (r"C:\Users\x\a.txt", "a.txt"),
        (r'"C:\\Users\\x\\a.txt"', '"a.txt"'),
        (r"C:\Users\Jane Doe\a.txt", "a.txt"),
        (r"C:\a\b D:\c\d", "b d"),
        ("C:/Users/x/a.txt", "a.txt"),
        ("~/runs/a", "a"),
        ("~/a", "a"),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(text, expected):
    assert without_absolute_paths(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "https://arxiv.org/abs/2606.05173",
        "[predrec](https://arxiv.org/abs/2606.05173), and http://127.0.0.1:8080/a/b/c?d=/e",
        "google/bert_uncased_L-2_H-128_A-2",
        "a/b and a/b/c, and/or, 80/10/10, 1/2",
        "2026/11/21, 21/11/2026",
        "../data/x/y.txt and ./a/b/c",
        "outputs/mine/a.txt",
        "<details><summary>a</summary></details>",
        "| a | b |\n|---|---|\n| `a/b` | 3 tokens/s |",
        "![Probes](figures/probes.png)",
        "~5 %, ~/",
        "a / b / c",
        "/",
        "data/**/x/*.txt",
        "${HOME}/a/b",
        r"\frac{a}{b} \n\t x:\n",
        "c: d",
    ],
)
def test_what_is_no_absolute_path_stays(text):
    assert without_absolute_paths(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in /home/jane, /home/jane.", "in ~, ~."),
        ("from ../../../home/jane/x.txt on", "from x.txt on"),
        ("/home/jane/x/y.txt and /home/janet/y", "y.txt and y"),
        ("https://hf.co/home/jane/x", "https://hf.co/home/jane/x"),
        ("jane/tiny", "jane/tiny"),
    ],
)
def test_home_folder_is_cut_too(monkeypatch, text, expected):
    monkeypatch.setenv("HOME", "/home/jane")
    assert without_absolute_paths(text) == expected


def test_home_folder_with_a_space_does_not_name_its_owner(monkeypatch):
    monkeypatch.setenv("HOME", "/Users/John Doe")
    assert "John" not in without_absolute_paths("see /Users/John Doe/secret project/a.txt")


@given(st.text(alphabet="aC:/\\~. \"'()[]<=,-\n", max_size=40))
def test_cutting_once_leaves_nothing_that_the_check_would_refuse(text):
    assert ABSOLUTE_PATH.search(without_absolute_paths(text)) is None


def test_assemble_names_no_folder_of_this_machine(folder):
    assemble(evaluated_run(), folder, "me/tiny")
    home = str(evaluated_run().parent)
    sources = {name for name in files_in(evaluated_run()) if home.encode() in (evaluated_run() / name).read_bytes()}
    assert {"README.md", "recipe.yaml", "results.json"} <= sources
    assert not [name for name in files_in(folder) if home.encode() in (folder / name).read_bytes()]


def test_assemble_keeps_the_last_part_of_paths(folder):
    assemble(evaluated_run(), folder, "me/tiny")
    recipe, results = (
        safe_load((folder / "recipe.yaml").read_text()),
        json.loads((folder / "results.json").read_text()),
    )
    assert recipe["train_file"] == ["corpus.txt"]
    assert results["commands"] == ["predrec probe --models hybrid=evaluated --output_dir probes"]


@pytest.mark.parametrize(
    "path",
    [
        "/Users/John Doe/secret project/train.txt",
        "../../../home/jane/secret/train.txt",
        "~/secret project/train.txt",
        "file:///Users/John Doe/train.txt",
        r"C:\Users\John Doe\secret\train.txt",
        "/Users/" + "John Doe with a name so long that YAML breaks the line " * 3 + "/train.txt",
    ],
)
def test_assemble_cuts_values_that_are_paths_with_spaces(run, folder, path):
    content = safe_load((run / "recipe.yaml").read_text())
    write_recipe(run / "recipe.yaml", content | {"train_file": [path], "tokenizer_name": path}, "The run")
    card = (run / "README.md").read_text()
    (run / "README.md").write_text(card + "\n```yaml\n" + safe_dump({"train_file": [path]}) + "```\n")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"_name_or_path": path}))
    assemble(run, folder, "me/tiny")
    recipe = (folder / "recipe.yaml").read_text()
    assert safe_load(recipe) == content | {
        "train_file": ["train.txt"],
        "tokenizer_name": "train.txt",
        "output_dir": Path(content["output_dir"]).name,
    }
    assert recipe.startswith("# The run\n")
    assert json.loads((folder / "config.json").read_text()) == config | {"_name_or_path": "train.txt"}
    assert (folder / "README.md").read_text().endswith("```yaml\ntrain_file:\n- train.txt\n```\n")


def test_assemble_leaves_tokens_that_look_like_paths(run, folder):
    content = json.loads((run / "tokenizer_config.json").read_text()) | {
        "some_token": "/",
        "others": ["~", "..", "//"],
    }
    (run / "tokenizer_config.json").write_text(json.dumps(content))
    assemble(run, folder, "me/tiny")
    assert json.loads((folder / "tokenizer_config.json").read_text()) == content


def test_validate_refuses_the_home_folder(assembled, monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    (assembled / "recipe.yaml").write_text("notes: made in /root by hand\n")
    with pytest.raises(UserError, match=r"recipe\.yaml names a path of this machine, '/root'"):
        validate(assembled)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "1_Pooling/config.json"])
def test_assemble_cuts_paths_in_configurations(run, folder, name):
    (run / "1_Pooling").mkdir()
    (run / "1_Pooling/config.json").write_text("{}")
    content = json.loads((run / name).read_text()) | {"_name_or_path": "/home/x/model"}
    (run / name).write_text(json.dumps(content))
    assemble(run, folder, "me/tiny")
    assert json.loads((folder / name).read_text())["_name_or_path"] == "model"


def test_validate_refuses_an_absolute_path(assembled):
    (assembled / "recipe.yaml").write_text("train_file: /home/x/a.txt\n")
    with pytest.raises(UserError, match=r"recipe\.yaml names a path of this machine, '/home/x/a\.txt'"):
        validate(assembled)


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (b'\x01File "/home/x/env/torch/a.py", line 3\x02', True),
        (rb"C:\Users\Jane Doe\env\a.py", True),
        (b'\x01File "torch/fx/a.py", line 3\x02', False),
        (b"/encoder/layer.0/MatMul /q/w", False),
    ],
)
def test_validate_refuses_a_graph_that_names_the_code_of_this_machine(assembled, content, refused):
    (assembled / "onnx").mkdir()
    (assembled / "onnx" / "model.onnx").write_bytes(content)
    if not refused:
        return validate(assembled)
    with pytest.raises(UserError, match=r"onnx/model\.onnx names a path of this machine, '.*a\.py'"):
        validate(assembled)


@pytest.mark.parametrize(
    "name",
    ["README.md", "recipe.yaml", "config.json", "modeling_predrec.py", ".eval_results/x.yaml", "tokenizer.json"],
)
def test_assemble_refuses_an_access_token(run, refused, name):
    path = run / name
    path.parent.mkdir(exist_ok=True)
    old = path.read_text() if path.exists() else "[]"
    edited = json.dumps(json.loads(old) | {"token": TOKEN}) if name.endswith(".json") else old + f"\n# {TOKEN}\n"
    path.write_text(edited)
    message = refused()
    assert f"{name} holds an access token" in message and TOKEN not in message


# What is broken


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_assemble_refuses_a_weight_that_is_not_finite(run, refused, value):
    change_weights(run, lambda tensors: tensors["lm_head.dense.weight"].view(-1)[:1].fill_(value))
    assert "model.safetensors has weights that are not finite: lm_head.dense.weight" in refused()


def test_assemble_refuses_a_missing_weight(run, refused):
    change_weights(run, lambda tensors: tensors.pop("lm_head.dense.weight"))
    assert "missing with the head" in refused()


def test_assemble_refuses_a_missing_weight_of_an_encoder_without_head(run, refused):
    config = json.loads((run / "config.json").read_text()) | {"architectures": ["PredRecModel"]}
    (run / "config.json").write_text(json.dumps(config))
    change_weights(run, lambda tensors: tensors.pop("model.layers.0.attn.qkv.weight"))
    assert "the weights do not load completely: missing layers.0.attn.qkv.weight" in refused()


def test_assemble_refuses_weights_of_another_shape(run, refused):
    change_weights(run, lambda tensors: tensors.update({"lm_head.dense.weight": torch.zeros(3, 3)}))
    assert "not fit to be published" in refused()


def test_assemble_refuses_a_cut_off_file(run, refused):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors cannot be read" in refused()


def test_assemble_refuses_a_missing_shard(run, refused):
    AutoModelForMaskedLM.from_pretrained(run).save_pretrained(run, max_shard_size="8KB")
    (run / "model.safetensors").unlink(missing_ok=True)
    sorted(run.glob("model-*.safetensors"))[-1].unlink()
    assert "not fit to be published" in refused()


@pytest.mark.parametrize("name", sorted(CODE))
def test_assemble_refuses_a_missing_code_file(run, refused, name):
    (run / name).unlink()
    assert f"config.json needs {name}, which is not there" in refused()


def test_assemble_refuses_a_broken_configuration(run, refused):
    (run / "config.json").write_text("{")
    assert "config.json cannot be read" in refused()


@pytest.mark.parametrize("name", ["README.md", "recipe.yaml"])
def test_assemble_refuses_text_that_is_not_utf_8(run, refused, name):
    (run / name).write_bytes((run / name).read_bytes() + "ü".encode("latin-1"))
    assert "holds text that is not UTF-8" in refused()


@pytest.mark.parametrize(
    "metadata", ["license: [", "- a list", "tags: a\n  b: c", "model-index:\n- name: x\n  results:\n  - {}"]
)
def test_assemble_refuses_broken_metadata_of_the_card(run, refused, metadata):
    (run / "README.md").write_text(f"---\n{metadata}\n---\n\n# A model\n")
    assert "the metadata of README.md cannot be read" in refused()


@pytest.mark.parametrize("text", ["a: [", "- value: 1", "a: 1", "- dataset: {}\n  value: 1", "text"])
def test_assemble_refuses_broken_results(run, refused, text):
    (run / ".eval_results").mkdir()
    (run / ".eval_results/glue.yaml").write_text(text)
    assert ".eval_results/glue.yaml cannot be read" in refused()


def test_assemble_names_every_problem_at_once(run, refused):
    (run / "modeling_predrec.py").unlink()
    (run / "recipe.yaml").write_text(TOKEN)
    assert refused().count("\n  - ") == 2


@pytest.mark.parametrize("name", ["notes.txt", "checkpoint-2/optimizer.pt", "figures/a.csv"])
def test_validate_refuses_a_file_that_does_not_belong(assembled, name):
    (assembled / name).parent.mkdir(exist_ok=True)
    (assembled / name).write_text("x")
    with pytest.raises(UserError, match=f"{name} does not belong in a repository"):
        validate(assembled)


def test_validate_refuses_a_link(assembled, tmp_path):
    shutil.move(assembled / "recipe.yaml", tmp_path / "recipe.yaml")
    (assembled / "recipe.yaml").symlink_to(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match=r"recipe\.yaml does not belong"):
        validate(assembled)


def test_validate_takes_what_assemble_made(assembled):
    validate(assembled)


# Folders


@pytest.mark.parametrize("name", ["config.json", "README.md", "tokenizer_config.json", "model.safetensors"])
def test_assemble_refuses_what_is_no_run(run, refused, folder, name):
    (run / name).unlink()
    assert f"is not a finished run or export: it lacks {name}." in refused()
    assert not folder.exists()


@pytest.mark.parametrize("name", [".", "hub", "a/b"])
def test_assemble_refuses_a_folder_in_the_run(run, refused, name):
    before = files_in(run)
    assert "lies in what is to be published" in refused(folder=run / name)
    assert files_in(run) == before


def test_assemble_refuses_a_folder_that_holds_the_run(run, refused):
    (run.parent / MARK).touch()
    assert "holds what is to be published" in refused(folder=run.parent)
    assert (run / "model.safetensors").is_file()


def test_assemble_refuses_a_folder_that_holds_something_else(refused, folder):
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("precious")
    assert "holds something else" in refused()
    assert files_in(folder) == {"thesis.tex"}


def test_assemble_refuses_a_file_in_the_place_of_the_folder(refused, folder):
    folder.parent.mkdir()
    folder.write_text("precious")
    assert "is a file; choose another folder" in refused()
    assert folder.read_text() == "precious"


def test_assemble_explains_a_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "`output_dir`: cannot write" in refused(folder=tmp_path / "file" / "folder")


def test_assemble_again_replaces_what_it_made(run, folder):
    assemble(run, folder, "me/tiny", "mit")
    (folder / "notes.txt").write_text("stale")
    assemble(copied(finished_run("bert"), run.parent / "bert"), folder, "me/other")
    assert files_in(folder) == FILES | {MARK}
    assert 'directory = "me/other"' in (folder / "README.md").read_text()


def test_assemble_again_gives_the_same(run, folder):
    assemble(run, folder, "me/tiny", "mit")
    before = {name: (folder / name).read_bytes() for name in files_in(folder)}
    assemble(run, folder, "me/tiny", "mit")
    assert {name: (folder / name).read_bytes() for name in files_in(folder)} == before


def test_assemble_follows_a_link_to_the_folder(run, folder, tmp_path):
    folder.parent.mkdir()
    (tmp_path / "disk").mkdir()
    folder.symlink_to(tmp_path / "disk")
    for _ in range(2):
        assemble(run, folder, "me/tiny")
    assert folder.is_symlink() and files_in(tmp_path / "disk") == FILES | CODE | {MARK}


def test_assemble_can_publish_what_it_made(assembled, folder):
    assemble(assembled, folder, "me/other")
    assert files_in(folder) == files_in(assembled)


def test_published_files_are_sorted_and_unique(assembled):
    found = published_files(assembled)
    assert found == sorted(set(found))


@pytest.mark.parametrize("tied", [True, False])
def test_language_models_load_completely(tmp_path, tied):
    """With their output layer, whether it is that of the embeddings or not."""
    size = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(**size, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=tied)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert list(_incomplete(tmp_path)) == []
