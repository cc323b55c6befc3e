"""The command that converts: a file of the original author's code in; a folder that loads, or one clear error, out."""

import hashlib
import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoModelForMaskedLM

from predrec.commands.convert_reference_checkpoint import main
from predrec.modeling import PredRecForPreTraining, reference_file
from predrec.publish.repository import assemble, published_files
from predrec.trainers.export import check_export
from tests.conftest import tiny_vocabulary
from tests.modeling.reference import encode, reference_checkpoint, regress

HEADS = ("--num_attention_heads", "2", "--predictor_num_attention_heads", "3")


def save(path: Path, saved: object) -> Path:
    torch.save(saved, path)
    return path


@pytest.fixture(scope="module", params=["hybrid", "mlm"])
def converted(request, tmp_path_factory):
    """What was saved, the file and the folder."""
    folder = tmp_path_factory.mktemp(request.param)
    saved = reference_checkpoint(request.param)
    path = save(folder / "run-final.pth.tar", saved)
    assert main([str(path), str(folder / "out"), *HEADS]) == 0
    return saved, path, folder / "out"


@pytest.fixture
def refused(refusal, tmp_path):
    """Runs the command, expects that it refuses and leaves no folder, and returns the message."""

    def run(source: object, *words: object) -> str:
        message = refusal(main, source, tmp_path / "out", *HEADS, *words)
        assert not (tmp_path / "out").exists()
        return message

    return run


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForMaskedLM])
def test_export_loads_completely(converted, auto):
    _, info = auto.from_pretrained(converted[2], output_loading_info=True)
    head = auto is AutoModel
    assert not info["missing_keys"]
    assert all(head and key.startswith("lm_head.") for key in info["unexpected_keys"])
    check_export(converted[2])


@torch.no_grad()
def test_export_computes_what_the_original_code_did(converted):
    saved, _, folder = converted
    model = AutoModelForMaskedLM.from_pretrained(folder)
    ids = torch.tensor([[7, 8, 9, 10, 11], [12, 13, 14, 0, 0]])
    states = encode(saved["encoder"], ids, 2)
    logits = model(ids, attention_mask=ids.ne(0).long()).logits
    torch.testing.assert_close(logits, regress(saved["token_regressor"], states), rtol=0, atol=1e-5)


def test_export_has_the_files_of_a_run(converted):
    there = {path.name for path in converted[2].iterdir()} - {"pretraining"}
    code = {"configuration_predrec.py", "modeling_predrec.py"}
    assert there == {"README.md", "config.json", "model.safetensors", *code}


def test_pretraining_model_loads_completely(converted):
    saved, _, folder = converted
    if saved["training_mode"] == "mlm":
        assert not (folder / "pretraining").exists()
        return
    model, info = PredRecForPreTraining.from_pretrained(folder / "pretraining", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert not model.config.encoder_config.attend_to_padding
    assert model.loss_logit == saved["loss_weight"][0]
    expected = saved["target_encoder"]["blocks.0.attn.qkv.weight"]
    assert torch.equal(model.target_encoder.layers[0].attn.qkv.weight, expected)
    assert not any(parameter.requires_grad for parameter in model.target_encoder.parameters())


def test_card_says_where_it_comes_from(converted):
    _, path, folder = converted
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert path.name in text and str(path.parent) not in text
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert "2606.05173" in text and "@article" in text and "attend_to_padding" in text
    assert ModelCard(text).data.pipeline_tag == "fill-mask"


def test_card_example_runs(converted, tmp_path, tiny_tokenizer, monkeypatch, capsys):
    saved, folder = reference_checkpoint("hybrid", num_tokens=len(tiny_vocabulary())), tmp_path / "converted"
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    words = [str(save(tmp_path / "c.pth.tar", saved)), str(folder), *HEADS]
    assert main([*words, "--tokenizer_name", str(tmp_path / "tokenizer")]) == 0
    assert "no tokenizer" not in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    variables: dict = {}
    for code in re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(code.replace("trust_remote_code=True", "trust_remote_code=False"), variables)
    assert capsys.readouterr().out.strip().endswith("torch.Size([2, 16])")
    assert variables["tokenizer"].model_max_length == 24 and type(variables["model"]) is PredRecForPreTraining


def test_output_says_what_was_found_and_decided(tmp_path, capsys):
    saved = reference_checkpoint("hybrid", width=128) | {"config": {"meta": {"pred_num_heads": 6}}}
    saved["encoder"] = {f"module.{name}": weight.bfloat16() for name, weight in saved["encoder"].items()}
    assert main([str(save(tmp_path / "c.pth.tar", saved)), str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "training mode: hybrid",
        "encoder: 2 layers, hidden size 128, feed-forward 512, vocabulary 40, 24 positions, 2 heads (the paper's "
        "width of 64 each, since `config` names none)",
        "predictor: 3 layers, hidden size 12, feed-forward 48, 6 heads (`config` of the checkpoint)",
        "note: `module.`, which data-parallel training puts before names, was taken off `encoder`",
        "note: bfloat16 weights were converted to float32",
        "note: pretraining has `attend_to_padding` false, since training masks padding; the encoder has it true",
        "note: no tokenizer was written; the paper's is --tokenizer_name google-bert/bert-base-uncased",
        str(tmp_path / "out"),
        str(tmp_path / "out/pretraining"),
    ]


def test_folder_may_exist_when_it_is_empty(tmp_path):
    (tmp_path / "out").mkdir()
    assert main([str(save(tmp_path / "c.pth.tar", reference_checkpoint("mlm"))), str(tmp_path / "out"), *HEADS]) == 0
    assert (tmp_path / "out/README.md").is_file()


def test_optimizer_may_be_large_and_odd(tmp_path):
    saved = reference_checkpoint("mlm") | {"opt": [torch.zeros(300_000), {1: {"x": None}}, torch.zeros(3).long()]}
    assert main([str(save(tmp_path / "c.pth.tar", saved)), str(tmp_path / "out"), *HEADS]) == 0


def changed(**parts: object):
    """Returns what makes a checkpoint with other parts; `None` takes one away."""

    def make() -> dict:
        saved = reference_checkpoint() | parts
        return {name: part for name, part in saved.items() if part is not None}

    return make


def with_weight(part: str, name: str, change, mode: str = "hybrid"):
    """Returns what makes a checkpoint with another weight; `change` gets it, and gives `None` to take it away."""

    def make() -> dict:
        saved = reference_checkpoint(mode)
        weight = change(saved[part].pop(name, None))
        if weight is not None:
            saved[part][name] = weight
        return saved

    return make


def spoiled(value: float):
    def change(weight):
        weight[0] = value
        return weight

    return change


def deep(levels: int) -> list:
    nested: list = []
    for _ in range(levels):
        nested = [nested]
    return nested


WRONG = {
    "not a mapping": (lambda: [1, 2], "it holds a list"),
    "a bare state dict": (lambda: reference_checkpoint()["encoder"], "`training_mode` is None"),
    "no training mode": (changed(training_mode=None), "`training_mode` is None"),
    "another training mode": (changed(training_mode="jepa"), "`training_mode` is 'jepa'; it must be hybrid or mlm"),
    "training mode a list": (changed(training_mode=["mlm"]), r"`training_mode` is \['mlm'\]"),
    "no encoder": (changed(encoder=None), "the part 'encoder' is missing"),
    "hybrid without target": (changed(target_encoder=None), "the part 'target_encoder' is missing"),
    "hybrid without loss weight": (changed(loss_weight=None), "the part 'loss_weight' is missing"),
    "mlm with target": (changed(training_mode="mlm"), "the part 'target_encoder' is not part of the format"),
    "unknown part": (changed(decoder={}), "the part 'decoder' is not part of the format"),
    "part no mapping": (changed(encoder=torch.zeros(3)), "`encoder` is a Tensor; it must map names to tensors"),
    "part with odd names": (changed(encoder={3: torch.zeros(3)}), "`encoder` is a dict; it must map names to tensors"),
    "empty part": (changed(predictor={}), "the weight of `predictor` 'mask_token' .*is missing"),
    "missing weight": (
        with_weight("encoder", "blocks.1.attn.qkv.bias", lambda _: None),
        "the weight of `encoder` 'blocks.1.attn.qkv.bias' is missing",
    ),
    "extra weight": (
        with_weight("encoder", "cls_token", lambda _: torch.zeros(1)),
        "the weight of `encoder` 'cls_token' is not part of the format",
    ),
    "block left out": (
        lambda: (
            (saved := reference_checkpoint())
            | {"encoder": {k.replace("blocks.1.", "blocks.7."): w for k, w in saved["encoder"].items()}}
        ),
        "'blocks.1.norm1.weight' .*is missing",
    ),
    "no blocks": (lambda: reference_checkpoint(depth=0), "`encoder` 'blocks.0.norm1.weight' .*is missing"),
    "half a prefix": (
        with_weight("encoder", "module.norm.weight", lambda _: torch.zeros(16)),
        "'module.norm.weight' is not part of the format",
    ),
    "wrong shape": (
        with_weight("encoder", "blocks.0.mlp.fc2.weight", lambda weight: weight.T.contiguous()),
        r"`blocks.0.mlp.fc2.weight` of `encoder` has shape \(64, 16\); to fit the others it must be \(16, 64\)",
    ),
    "wrong rank": (with_weight("encoder", "pos_embed", lambda weight: weight[0]), r"must be \(1, L, D\)"),
    "other vocabulary": (
        with_weight("token_regressor", "regress.bias", lambda _: torch.zeros(41)),
        r"`regress.bias` of `token_regressor` has shape \(41,\); .* \(40\)",
    ),
    "shallower target": (
        lambda: reference_checkpoint() | {"target_encoder": reference_checkpoint(depth=1)["target_encoder"]},
        "the weight of `target_encoder` 'blocks.1.norm1.weight' .*is missing",
    ),
    "predictor of another width": (
        lambda: reference_checkpoint() | {"predictor": reference_checkpoint(width=32)["predictor"]},
        r"`predictor_embed.weight` of `predictor` has shape \(12, 32\); to fit the others it must be \(12, 16\)",
    ),
    "no width": (
        lambda: reference_checkpoint(num_tokens=0),
        "`token_embed.token_embed.weight` of `encoder` is no ordinary tensor, or an empty one",
    ),
    "nan": (
        with_weight("encoder", "norm.weight", spoiled(float("nan"))),
        "`norm.weight` of `encoder` holds values that are not finite",
    ),
    "infinite": (with_weight("predictor", "predictor_proj.bias", spoiled(float("inf"))), "not finite"),
    "loss weight nan": (changed(loss_weight=torch.tensor([float("nan")])), "`loss_weight` holds values"),
    "loss weight a number": (changed(loss_weight=0.5), "`loss_weight` is no ordinary tensor"),
    "loss weight two numbers": (changed(loss_weight=torch.zeros(2)), r"`loss_weight` has shape \(2,\)"),
    "learned positions": (
        with_weight("encoder", "pos_embed", lambda weight: weight + 1e-3),
        "`pos_embed` of `encoder` is not the fixed sinusoidal table",
    ),
    "interleaved positions": (
        with_weight("predictor", "pred_pos_embed", lambda w: torch.stack([w[..., :6], w[..., 6:]], -1).flatten(2)),
        "`pred_pos_embed` of `predictor` is not the fixed sinusoidal table",
    ),
    "integers": (
        with_weight("encoder", "norm.bias", lambda weight: weight.long()),
        "`norm.bias` of `encoder` is torch.int64; it must be float32, bfloat16 or float16",
    ),
    "double precision": (with_weight("encoder", "norm.bias", lambda weight: weight.double()), "is torch.float64"),
    "sparse": (
        with_weight("token_regressor", "proj.weight", torch.Tensor.to_sparse),
        "`proj.weight` .* is no ordinary tensor",
    ),
    "not a tensor": (with_weight("encoder", "norm.bias", lambda _: [0.0] * 16), "is no ordinary tensor"),
    "no data": (with_weight("encoder", "norm.bias", lambda w: w.to("meta")), "`norm.bias` .* is no ordinary tensor"),
    "no predictor width": (lambda: reference_checkpoint(predictor_width=0), "`mask_token` of `predictor` is no ord"),
    "no positions": (lambda: reference_checkpoint(num_positions=0), "`pos_embed` of `encoder` is no ordinary tensor"),
    "odd width": (lambda: reference_checkpoint(width=15), "`pos_embed` of `encoder` .*must be|not the fixed"),
    "expanded": (
        with_weight("token_regressor", "regress.weight", lambda _: torch.zeros(1).expand(10**9, 16)),
        "`regress.weight` of `token_regressor` is no ordinary tensor",
    ),
    "one memory for all": (
        lambda: reference_checkpoint("mlm") | {"encoder": shared_encoder()},
        "its weights claim to be larger than the file",
    ),
    "heads that do not divide": (changed(config={"num_heads": 5}), None),
    "nested beyond reason": (changed(config=deep(200)), None),
}
"""What is in a file, and the error; `None` if it converts, because the command line says what matters."""


def shared_encoder() -> dict:
    """An encoder of 400 blocks that all have the memory of one."""
    encoder = reference_checkpoint(depth=1)["encoder"]
    block = {
        name.removeprefix("blocks.0."): weight for name, weight in encoder.items() if name.startswith("blocks.0.")
    }
    return encoder | {f"blocks.{number}.{name}": weight for number in range(400) for name, weight in block.items()}


@pytest.mark.parametrize("kind", [kind for kind, (_, message) in WRONG.items() if message])
def test_file_with_wrong_contents_is_refused(refused, tmp_path, kind):
    make, message = WRONG[kind]
    found = refused(save(tmp_path / "c.pth.tar", make()))
    assert "c.pth.tar' cannot be converted" in found
    assert re.search(message, found)


@pytest.mark.parametrize("kind", [kind for kind, (_, message) in WRONG.items() if not message])
def test_configuration_is_not_trusted(tmp_path, kind):
    path = save(tmp_path / "c.pth.tar", WRONG[kind][0]())
    assert main([str(path), str(tmp_path / "out"), *HEADS]) == 0


class Call:
    """Pickles as a call that makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def with_code(tmp_path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(reference_checkpoint() | {"opt": Call(tmp_path / "sentinel")}, buffer)
    return buffer.getvalue()


def plain_pickle(tmp_path: Path) -> bytes:
    return pickle.dumps(Call(tmp_path / "sentinel"))


def rezipped(tmp_path: Path, compression: int = zipfile.ZIP_STORED, **replaced: bytes) -> bytes:
    """A file of `torch.save` with its archive written anew."""
    torch.save(reference_checkpoint(), tmp_path / "source")
    buffer = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "source") as source, zipfile.ZipFile(buffer, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, replaced.get(Path(name).stem, source.read(name)))
    return buffer.getvalue()


def overlong(tmp_path: Path) -> bytes:
    """A loss weight of one number that claims to be 2^30; the pickle writes 1 as `K\\x01`, 2^30 as `J` and 4 bytes."""
    torch.save(changed(loss_weight=torch.tensor([0.7]))(), tmp_path / "source")
    with zipfile.ZipFile(tmp_path / "source") as source:
        data = source.read("source/data.pkl")
    return rezipped(tmp_path, data=data.replace(b"K\x01\x85", b"J\x00\x00\x00\x40\x85"))


def intact(tmp_path: Path) -> bytes:
    return save(tmp_path / "source", reference_checkpoint()).read_bytes()


def flipped(tmp_path: Path) -> bytes:
    content = bytearray(intact(tmp_path))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def legacy(tmp_path: Path) -> bytes:
    torch.save(reference_checkpoint(), tmp_path / "source", _use_new_zipfile_serialization=False)
    return (tmp_path / "source").read_bytes()


def script(tmp_path: Path) -> bytes:
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "source")
    return (tmp_path / "source").read_bytes()


FILES = {
    "code in the optimizer": (with_code, "more than weights and plain values"),
    "pickle with code": (plain_pickle, "cut short, or not a file of `torch.save`"),
    "code as the contents": (lambda path: rezipped(path, data=plain_pickle(path)), "more than weights|cannot read it"),
    "empty": (lambda _: b"", "cut short, or not a file"),
    "text": (lambda _: b"404: Not Found\n", "cut short, or not a file"),
    "truncated": (lambda path: intact(path)[:-200], "cut short, or not a file"),
    "first half": (lambda path: intact(path)[: len(intact(path)) // 2], "cut short, or not a file"),
    "one byte flipped": (flipped, "it is damaged at|cut short"),
    "compressed": (lambda path: rezipped(path, zipfile.ZIP_DEFLATED), "it is compressed"),
    "garbage inside": (lambda path: rezipped(path, data=b"\x80\x02garbage"), "torch cannot read it|more than weights"),
    "weights beyond its end": (overlong, "torch cannot read it"),
    "legacy format": (legacy, "cut short, or not a file"),
    "TorchScript": (script, "it is compressed|torch cannot read it"),
    "another zip": (lambda _: _zip_of("a.txt"), "torch cannot read it"),
}
"""Files that are no checkpoint, and the error."""


def _zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "text")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:.*torch.jit|.*TorchScript")
@pytest.mark.parametrize("kind", FILES)
def test_file_that_is_no_checkpoint_is_refused_and_not_run(refused, tmp_path, kind):
    make, message = FILES[kind]
    (tmp_path / "c.pth.tar").write_bytes(make(tmp_path))
    found = refused(tmp_path / "c.pth.tar")
    assert re.search(message, found)
    assert not (tmp_path / "sentinel").exists()


def test_code_would_have_run_elsewhere(tmp_path):
    """So the tests above do not pass for want of a working attack."""
    pickle.loads(plain_pickle(tmp_path))
    assert (tmp_path / "sentinel").is_dir()


def test_code_does_not_run_when_the_environment_asks_for_it(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "c.pth.tar").write_bytes(with_code(tmp_path))
    assert "posix.mkdir" in refused(tmp_path / "c.pth.tar")
    assert not (tmp_path / "sentinel").exists()


def test_huge_file_is_not_opened(refused, tmp_path):
    with (tmp_path / "c.pth.tar").open("wb") as file:
        file.truncate(reference_file.MAX_BYTES + 1)
    assert "it has 32 GiB; at most 32 are read" in refused(tmp_path / "c.pth.tar")


def test_missing_file_is_refused(refused, tmp_path):
    assert "the file does not exist" in refused(tmp_path / "nowhere.pth.tar")


def test_folder_instead_of_a_file_is_refused(refused, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "it is a folder" in refused(tmp_path / "folder")


@pytest.mark.parametrize("words", [[], ["only.pth.tar"], ["a", "b", "c"]])
def test_file_and_folder_are_needed(words, capsys):
    assert main([*words, "--num_attention_heads", "2"]) == 2
    assert "Give the file and the folder first" in capsys.readouterr().err


def test_number_of_heads_that_cannot_be_is_refused(refused, tmp_path):
    path = save(tmp_path / "c.pth.tar", reference_checkpoint())
    assert "`num_attention_heads` is 0" in refused(path, "--num_attention_heads", "0")
    assert "do not divide its width of 16" in refused(path, "--num_attention_heads", "5")
    assert "`--predictor_num_attention_heads`" in refused(path, "--predictor_num_attention_heads", "5")


def test_tokenizer_with_more_tokens_is_refused(refused, tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = save(tmp_path / "c.pth.tar", reference_checkpoint())
    assert "`tokenizer_name`" in refused(path, "--tokenizer_name", tmp_path / "tokenizer")
    assert "cannot load a tokenizer" in refused(path, "--tokenizer_name", tmp_path / "nowhere")


def test_folder_that_is_not_empty_is_left_alone(tmp_path, capsys):
    path = save(tmp_path / "c.pth.tar", reference_checkpoint())
    assert main([str(path), str(tmp_path), *HEADS]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.pth.tar"]


def test_folder_below_a_file_is_refused(tmp_path, capsys):
    path = save(tmp_path / "c.pth.tar", reference_checkpoint())
    assert main([str(path), str(path / "out"), *HEADS]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("existed", [True, False])
def test_failed_write_leaves_nothing(tmp_path, monkeypatch, capsys, existed):
    if existed:
        (tmp_path / "out").mkdir()

    def fill_the_disk(self, directory, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PredRecForPreTraining, "save_pretrained", fill_the_disk)
    path = save(tmp_path / "c.pth.tar", reference_checkpoint())
    assert main([str(path), str(tmp_path / "out"), *HEADS]) == 2
    assert "No space left" in capsys.readouterr().err
    assert list((tmp_path / "out").glob("*")) == [] and (tmp_path / "out").exists() is existed


def test_what_is_published_of_it_is_all_of_it(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    saved, out = reference_checkpoint("hybrid", num_tokens=len(tiny_vocabulary())), tmp_path / "out"
    path = save(tmp_path / "run.pth.tar", saved)
    words = ["--tokenizer_name", str(tmp_path / "tokenizer")]
    assert main([str(path), str(out), *HEADS, *words]) == 0
    assemble(out, tmp_path / "hub", "me/converted")
    assert published_files(tmp_path / "hub") == sorted(p.relative_to(out) for p in out.rglob("*") if p.is_file())
