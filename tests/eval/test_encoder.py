"""Loading of frozen encoders, their token ids and states, and what makes two of them the same."""

import inspect
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, BertTokenizer, PreTrainedTokenizerFast, T5Config, T5Model
from transformers.utils import logging

from predrec.errors import UserError
from predrec.eval.encoder import best_dtype, fingerprint, hash_weights, load_encoder

from ..conftest import tiny_vocabulary
from ..modeling.tiny import HIDDEN_SIZE, pretraining_model

TEXTS = ["the cat sat on the mat", "a dog", "the dog ran and then the cat ran on and on"]
MODEL_TYPES = ["predrec", "bert", "roberta"]
ALL_TYPES = [*MODEL_TYPES, "xlm-roberta", "mpnet", "electra", "modernbert"]


def plain_tokenizer(**special_tokens: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words that adds no special tokens to a text."""
    backend = Tokenizer(models.WordLevel(tiny_vocabulary(), unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **special_tokens)


def edit_weights(folder, edit) -> None:
    """Rewrites the checkpoint of a directory after `edit` has changed its tensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def load(folder, **options):
    return load_encoder(folder, device="cpu", **({"dtype": "float32"} | options))


@pytest.fixture(scope="module")
def folder(tiny_encoder, tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoders") / "first")


@pytest.fixture(scope="module")
def encoder(folder):
    return load(folder)


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the directory, to be changed."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_load_encoder_gives_the_states_of_the_model(tiny_encoder, tmp_path, model_type):
    encoder = load(tiny_encoder(tmp_path, model_type))
    inputs = encoder.tokenizer(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(tmp_path).eval()(**inputs).last_hidden_state
    torch.testing.assert_close(encoder.states(encoder.tokenize(TEXTS[:1]))[0], expected)


def test_load_encoder_freezes_the_model(encoder):
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())


def test_load_encoder_puts_the_model_in_evaluation_mode(tiny_encoder, tmp_path):
    assert not load(tiny_encoder(tmp_path)).model.training


def test_load_encoder_names_the_encoder_after_its_folder(encoder):
    assert encoder.name == "first"


def test_load_encoder_names_the_encoder_after_the_current_folder(copy, monkeypatch):
    monkeypatch.chdir(copy)
    assert load(".").name == "copy"


def test_load_encoder_leaves_the_verbosity_as_it_was(folder):
    before = logging.get_verbosity()
    load(folder)
    assert logging.get_verbosity() == before


def test_load_encoder_takes_a_bert_without_a_pooler(tiny_encoder, tmp_path):
    tiny_encoder(tmp_path, "bert")

    def drop_pooler(tensors):
        for name in [name for name in tensors if name.startswith("pooler.")]:
            del tensors[name]

    edit_weights(tmp_path, drop_pooler)
    encoder = load(tmp_path)
    assert encoder.hidden_size == HIDDEN_SIZE
    # A pooler drawn at random would give the weights another name at every load.
    assert load(tmp_path).weights == encoder.weights


def test_load_encoder_takes_the_encoder_of_a_masked_lm(tmp_path, tiny_tokenizer):
    model = pretraining_model().masked_lm
    model.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    weights = hash_weights(model.base_model)
    assert load(tmp_path).weights == weights


@pytest.mark.parametrize("subfolder", ["", "0_Transformer"])
def test_load_encoder_finds_the_transformer_of_sentence_transformers(tiny_encoder, tmp_path, encoder, subfolder):
    tiny_encoder(tmp_path / subfolder)
    modules = [
        {"idx": 0, "name": "0", "path": subfolder, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert load(tmp_path).fingerprint == encoder.fingerprint


def test_load_encoder_names_sentence_transformers_after_the_outer_folder(tiny_encoder, tmp_path):
    tiny_encoder(tmp_path / "mine" / "0_Transformer")
    (tmp_path / "mine" / "modules.json").write_text('[{"path": "0_Transformer"}]')
    assert load(tmp_path / "mine").name == "mine"


@pytest.mark.parametrize("content", ["[]", "{", "{}"])
def test_load_encoder_explains_damaged_modules(copy, content):
    (copy / "modules.json").write_text(content)
    with pytest.raises(UserError, match="does not list the modules of a sentence encoder"):
        load(copy)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra"])
def test_load_encoder_refuses_a_folder_without_a_tokenizer(tiny_encoder, tmp_path, model_type):
    tiny_encoder(tmp_path, model_type)
    for path in [*tmp_path.glob("tokenizer*"), *tmp_path.glob("vocab*")]:
        path.unlink()
    with pytest.raises(UserError, match="there is no tokenizer, or one without words"):
        load(tmp_path)


def test_load_encoder_refuses_missing_weights(copy):
    name = min(load_file(copy / "model.safetensors"))
    edit_weights(copy, lambda tensors: tensors.pop(name))
    with pytest.raises(UserError, match=f"copy: 1 weights are not in the checkpoint .* random, such as '{name}'"):
        load(copy)


def test_load_encoder_refuses_weights_of_another_size(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 1}))
    with pytest.raises(UserError, match="embeddings"):
        load(copy)


def test_load_encoder_explains_a_training_checkpoint(tmp_path, tiny_tokenizer):
    pretraining_model().save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="the trained encoder is in the run's own directory"):
        load(tmp_path)


def test_load_encoder_explains_a_training_checkpoint_in_short(tmp_path, tiny_tokenizer):
    pretraining_model().save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert len(str(error.value)) < 1000


def test_load_encoder_explains_a_missing_folder():
    with pytest.raises(UserError, match="Cannot load an encoder from 'nobody/nothing'"):
        load("nobody/nothing")


def test_load_encoder_explains_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="Cannot load an encoder from"):
        load(tmp_path)


def test_load_encoder_explains_damaged_weights(copy):
    (copy / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="Cannot load an encoder from"):
        load(copy)


def test_load_encoder_refuses_an_encoder_decoder(tmp_path, tiny_tokenizer):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    T5Model(T5Config(vocab_size=160, **sizes)).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is an encoder-decoder; an encoder is needed"):
        load(tmp_path)


def test_load_encoder_refuses_a_tokenizer_larger_than_the_vocabulary(tiny_encoder, tmp_path, tiny_tokenizer):
    tiny_encoder(tmp_path, vocab_size=50)
    with pytest.raises(UserError, match=f"the tokenizer has {len(tiny_tokenizer)} tokens but the encoder 50"):
        load(tmp_path)


def test_load_encoder_refuses_an_encoder_without_a_padding_token(tiny_encoder, tmp_path):
    tiny_encoder(tmp_path, "bert", tokenizer=plain_tokenizer(), pad_token_id=None)
    with pytest.raises(UserError, match="neither the tokenizer nor the configuration has a padding token"):
        load(tmp_path)


def test_load_encoder_takes_the_padding_token_of_the_configuration(tiny_encoder, tmp_path):
    tiny_encoder(tmp_path, "bert", tokenizer=plain_tokenizer(), pad_token_id=3)
    assert load(tmp_path).pad_token_id == 3


@pytest.mark.parametrize(
    ("model_type", "longest"),
    # RoBERTa's positions begin after its padding id, which is 1.
    [("predrec", 64), ("bert", 64), ("roberta", 62)],
)
def test_load_encoder_cuts_the_length_to_what_the_encoder_takes(tiny_encoder, tmp_path, model_type, longest):
    assert load(tiny_encoder(tmp_path, model_type)).max_seq_length == longest


def test_load_encoder_cuts_the_length_to_what_the_tokenizer_takes(tiny_encoder, tmp_path):
    tokenizer = BertTokenizer(vocab=tiny_vocabulary(), model_max_length=20)
    assert load(tiny_encoder(tmp_path, tokenizer=tokenizer)).max_seq_length == 20


def test_load_encoder_keeps_a_length_that_fits(folder):
    assert load(folder, max_seq_length=10).max_seq_length == 10


@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_states_of_the_longest_text_are_finite(tiny_encoder, tmp_path, model_type):
    encoder = load(tiny_encoder(tmp_path, model_type))
    states, _ = encoder.states(encoder.tokenize(["the cat " * 200]))
    assert states.shape[1] == encoder.max_seq_length and states.isfinite().all()


def test_tokenize_adds_special_tokens(encoder):
    vocabulary = encoder.tokenizer.get_vocab()
    assert encoder.tokenize(["the cat"]) == [[vocabulary[word] for word in ("[CLS]", "the", "cat", "[SEP]")]]


def test_tokenize_separates_the_texts_of_a_pair(encoder):
    words = encoder.tokenizer.convert_ids_to_tokens(encoder.tokenize([("the cat", "a dog")])[0])
    assert words == ["[CLS]", "the", "cat", "[SEP]", "a", "dog", "[SEP]"]


def test_tokenize_cuts_long_texts(folder):
    assert [len(ids) for ids in load(folder, max_seq_length=6).tokenize(TEXTS)] == [6, 4, 6]


def test_tokenize_cuts_long_pairs(folder):
    assert len(load(folder, max_seq_length=6).tokenize([(TEXTS[0], TEXTS[2])])[0]) == 6


def test_tokenize_takes_no_texts(encoder):
    assert encoder.tokenize([]) == []


def test_tokenize_takes_an_empty_text_with_special_tokens(encoder):
    assert encoder.tokenizer.convert_ids_to_tokens(encoder.tokenize([""])[0]) == ["[CLS]", "[SEP]"]


def test_tokenize_refuses_a_text_without_tokens(tiny_encoder, tmp_path):
    encoder = load(tiny_encoder(tmp_path, tokenizer=plain_tokenizer(pad_token="[PAD]")))
    with pytest.raises(UserError, match="the text '' has no token, so it has no vector"):
        encoder.tokenize(["the cat", ""])


@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_states_of_a_padded_batch_equal_those_of_single_texts(tiny_encoder, tmp_path, model_type):
    encoder = load(tiny_encoder(tmp_path, model_type))
    ids = encoder.tokenize(TEXTS)
    together, mask = encoder.states(ids)
    alone = torch.cat([encoder.states([row])[0][0] for row in ids])
    torch.testing.assert_close(together[mask], alone, rtol=1e-5, atol=1e-5)


def test_states_of_what_attends_to_padding_do_not_depend_on_the_batch(tiny_encoder, tmp_path):
    """They are those of a text that is padded to `max_seq_length`, whatever stands beside it."""
    tiny_encoder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"attend_to_padding": True}))
    encoder = load(tmp_path, max_seq_length=24)
    ids = encoder.tokenize(TEXTS)
    together, mask = encoder.states(ids)
    assert together.shape[1] == max(map(len, ids)) < 24
    alone = torch.cat([encoder.states([row])[0][0] for row in ids])
    torch.testing.assert_close(together[mask], alone, rtol=1e-5, atol=1e-5)
    padded = torch.tensor([ids[0] + [encoder.pad_token_id] * (24 - len(ids[0]))])
    expected = encoder.model(padded).last_hidden_state[:, : len(ids[0])]
    torch.testing.assert_close(encoder.states(ids[:1])[0], expected, rtol=1e-5, atol=1e-5)


def test_states_mask_real_tokens(encoder):
    _, mask = encoder.states([[2, 5, 3], [2, 5, 6, 7, 3]])
    assert mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]


def test_states_of_bfloat16_are_near_those_of_float32(folder, encoder):
    half = load(folder, dtype="bfloat16")
    ids = encoder.tokenize(TEXTS)
    torch.testing.assert_close(half.states(ids)[0], encoder.states(ids)[0], rtol=0.05, atol=0.1)


def test_states_of_bfloat16_are_float32(folder):
    assert load(folder, dtype="bfloat16").states([[2, 5, 3]])[0].dtype == torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_best_dtype_takes_a_named_type(name):
    assert best_dtype(name, torch.device("cpu")) == getattr(torch, name)


@pytest.mark.parametrize(("fast", "expected"), [(False, torch.float32), (True, torch.bfloat16)])
def test_best_dtype_is_bfloat16_where_it_is_fast(monkeypatch, fast, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert best_dtype("auto", torch.device("cpu")) == expected


def test_describe_fits_into_json(encoder):
    description = encoder.describe()
    assert json.loads(json.dumps(description)) == description


def test_describe_says_what_the_encoder_is(encoder):
    facts = {"folder": "first", "model_type": "predrec", "num_hidden_layers": 2, "dtype": "float32"}
    assert encoder.describe().items() >= facts.items()


def test_fingerprint_is_that_of_the_same_files_elsewhere(copy, encoder):
    assert load(copy).fingerprint == encoder.fingerprint


def test_fingerprint_outlives_tokenization(folder, encoder):
    used = load(folder)
    used.tokenizer(TEXTS, padding=True, truncation=True, max_length=5)
    assert fingerprint(used) == encoder.fingerprint


def test_fingerprint_changes_with_a_weight(copy, encoder):
    edit_weights(copy, lambda tensors: tensors[min(tensors)].view(-1)[:1].add_(1e-3))
    assert load(copy).fingerprint != encoder.fingerprint


def test_fingerprint_changes_with_the_tokenizer(copy, encoder):
    vocabulary = tiny_vocabulary()
    vocabulary["the"], vocabulary["cat"] = vocabulary["cat"], vocabulary["the"]
    BertTokenizer(vocab=vocabulary, model_max_length=128).save_pretrained(copy)
    assert load(copy).fingerprint != encoder.fingerprint


def test_fingerprint_changes_with_the_end_that_is_cut(copy, encoder):
    BertTokenizer(vocab=tiny_vocabulary(), model_max_length=128, truncation_side="left").save_pretrained(copy)
    assert load(copy).fingerprint != encoder.fingerprint


def test_fingerprint_changes_with_the_code_of_the_model(encoder, monkeypatch, tmp_path):
    """A checkpoint may carry its own."""
    paths = [tmp_path / name for name in ("one.py", "copy.py", "other.py")]
    found = []
    for path, line in zip(paths, ("x = 1", "x = 1", "x = 2"), strict=True):
        path.write_text(line)
        monkeypatch.setattr(inspect, "getsourcefile", {type(encoder.model): str(path)}.get)
        found.append(fingerprint(encoder))
    assert found[0] == found[1] != found[2]


def test_fingerprint_changes_with_the_configuration(copy, encoder):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    assert load(copy).fingerprint != encoder.fingerprint


@pytest.mark.parametrize("option", [{"max_seq_length": 10}, {"dtype": "bfloat16"}])
def test_fingerprint_changes_with_an_option(folder, encoder, option):
    assert load(folder, **option).fingerprint != encoder.fingerprint


def test_weights_do_not_change_with_an_option(folder, encoder):
    assert load(folder, max_seq_length=10).weights == encoder.weights
