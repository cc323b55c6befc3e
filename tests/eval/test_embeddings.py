"""Vectors through the cache against poolings of one text at a time, and what the cache keeps."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from predrec.errors import UserError
from predrec.eval import embeddings
from predrec.eval.embeddings import Embedder, EmbeddingCache, TokenStates, default_cache_dir, text_key
from predrec.eval.encoder import load_encoder
from predrec.eval.pooling import POOLINGS, attention_draw, attention_pooling

from ..modeling.tiny import HIDDEN_SIZE

TEXTS = [
    "the dog ran and then the cat ran on and on",
    "a cat",
    "the cat sat on the mat",
    "a dog",
    "the dogs sat on a mat and the cats ran",
]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # Float32, with and without padding.
NUM_DRAWS = 3

pytestmark = pytest.mark.filterwarnings("error:.*is damaged and left out")


def embedder_of(encoder, cache_dir=None, num_draws: int = NUM_DRAWS) -> Embedder:
    return Embedder(encoder, cache_dir, num_draws=num_draws, progress=False)


def states_of(encoder, text) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the states and the mask of a text that is encoded alone."""
    return encoder.states(encoder.tokenize([text]))


def expected_vectors(encoder, texts, pooling: str) -> torch.Tensor:
    return torch.cat([POOLINGS[pooling](*states_of(encoder, text)) for text in texts])


def shards(cache_dir: Path) -> list[Path]:
    return sorted(cache_dir.glob("*/*.safetensors"))


def scale_states(encoder, factor: float) -> None:
    """Multiplies the last LayerNorm, and with it all states."""
    *_, last = (module for module in encoder.model.modules() if isinstance(module, torch.nn.LayerNorm))
    last.weight.mul_(factor)


@pytest.fixture(scope="module")
def folder(tiny_encoder, tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder, dtype="float32", device="cpu")


@pytest.fixture
def half_encoder(folder):
    return load_encoder(folder, dtype="bfloat16", device="cpu")


@pytest.fixture
def embedder(encoder):
    """An embedder that keeps everything in memory."""
    return embedder_of(encoder)


@pytest.fixture
def small_shards(monkeypatch):
    """Batches of few tokens, each stored in a shard of its own."""
    monkeypatch.setattr(embeddings, "SHARD_BYTES", 1)
    monkeypatch.setattr(embeddings, "TOKENS_PER_BATCH", {"cpu": 12})


def test_embeddings_are_the_mean_of_the_words_in_the_table(encoder):
    """Without special tokens; the encoder does not run."""
    special = {encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id}
    tokens = [[token for token in row if token not in special] for row in encoder.tokenize(TEXTS)]
    table = encoder.model.get_input_embeddings().weight
    expected = torch.stack([table[row].mean(0) for row in tokens])
    torch.testing.assert_close(embedder_of(encoder).vectors(TEXTS, "embeddings"), expected, **CLOSE)


def test_embeddings_need_no_encoder(encoder, monkeypatch):
    monkeypatch.setattr(type(encoder), "states", None)
    assert len(embedder_of(encoder).vectors(TEXTS, "embeddings")) == len(TEXTS)


def test_embeddings_stand_beside_what_the_encoder_made(encoder):
    embedder = embedder_of(encoder)
    embedder.encode(TEXTS, embedder.groups_for(["mean", "embeddings", "attention"]))
    for pooling in ("mean", "embeddings"):
        alone = embedder_of(encoder).vectors(TEXTS, pooling)
        torch.testing.assert_close(embedder.vectors(TEXTS, pooling), alone, **CLOSE)


def test_embeddings_count_unknown_words_and_empty_texts(encoder):
    """A text without words has the mean of its special tokens."""
    tokenizer, table = encoder.tokenizer, encoder.model.get_input_embeddings().weight
    found = embedder_of(encoder).vectors(["☃", ""], "embeddings")
    assert tokenizer.tokenize("☃") == [tokenizer.unk_token]
    torch.testing.assert_close(found[0], table[tokenizer.unk_token_id], **CLOSE)
    torch.testing.assert_close(found[1], table[[tokenizer.cls_token_id, tokenizer.sep_token_id]].mean(0), **CLOSE)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_equal_the_pooling_of_each_text(encoder, embedder, pooling):
    torch.testing.assert_close(embedder.vectors(TEXTS, pooling), expected_vectors(encoder, TEXTS, pooling), **CLOSE)


@pytest.mark.parametrize("draw", range(NUM_DRAWS))
def test_vectors_of_attention_equal_each_draw(encoder, embedder, draw):
    query, key = attention_draw(HIDDEN_SIZE, draw)
    expected = torch.cat([attention_pooling(*states_of(encoder, text), query, key) for text in TEXTS])
    torch.testing.assert_close(embedder.vectors(TEXTS, "attention")[:, draw], expected, **CLOSE)


def test_vectors_of_attention_have_a_row_per_draw(embedder):
    assert embedder.vectors(TEXTS, "attention").shape == (len(TEXTS), NUM_DRAWS, HIDDEN_SIZE)


def test_vectors_of_attention_keep_their_draws_beside_more(encoder, tmp_path):
    few = embedder_of(encoder, tmp_path, num_draws=2).vectors(TEXTS, "attention")
    many = embedder_of(encoder, tmp_path, num_draws=4).vectors(TEXTS, "attention")
    torch.testing.assert_close(many[:, :2], few, **CLOSE)


def test_vectors_equal_the_pooling_of_each_pair(encoder, embedder):
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[0]), (TEXTS[2], TEXTS[3])]
    torch.testing.assert_close(embedder.vectors(pairs, "mean"), expected_vectors(encoder, pairs, "mean"), **CLOSE)


def test_vectors_keep_duplicates(encoder, embedder):
    texts = [TEXTS[1], TEXTS[0], TEXTS[1], TEXTS[1], TEXTS[2]]
    torch.testing.assert_close(embedder.vectors(texts, "max"), expected_vectors(encoder, texts, "max"), **CLOSE)


def test_vectors_keep_the_order_of_a_later_call(embedder):
    vectors = embedder.vectors(TEXTS, "mean")
    assert torch.equal(embedder.vectors(TEXTS[::-1], "mean"), vectors.flip(0))


def test_vectors_join_known_and_new_texts(encoder, embedder):
    embedder.vectors(TEXTS[2:4], "cls")
    torch.testing.assert_close(embedder.vectors(TEXTS, "cls"), expected_vectors(encoder, TEXTS, "cls"), **CLOSE)


def test_vectors_refuse_no_texts(embedder):
    with pytest.raises(UserError, match="There are no texts to encode"):
        embedder.vectors([], "mean")


@pytest.mark.parametrize("pooling", [*POOLINGS, "attention"])
def test_vectors_of_several_shards_equal_those_of_one(encoder, small_shards, monkeypatch, tmp_path, pooling):
    several = embedder_of(encoder, tmp_path).vectors(TEXTS, pooling)
    monkeypatch.undo()
    torch.testing.assert_close(several, embedder_of(encoder).vectors(TEXTS, pooling), **CLOSE)


def test_vectors_of_several_shards_are_read_back(encoder, small_shards, tmp_path):
    made = embedder_of(encoder, tmp_path).vectors(TEXTS, "mean")
    assert torch.equal(embedder_of(encoder, tmp_path).vectors(TEXTS, "mean"), made)


def test_encode_writes_several_shards(encoder, small_shards, tmp_path):
    embedder_of(encoder, tmp_path).vectors(TEXTS, "mean")
    assert len(shards(tmp_path)) > 1


def test_encode_takes_a_text_longer_than_a_batch(encoder, monkeypatch):
    monkeypatch.setattr(embeddings, "TOKENS_PER_BATCH", {"cpu": 1})
    vectors = embedder_of(encoder).vectors(TEXTS, "mean")
    torch.testing.assert_close(vectors, expected_vectors(encoder, TEXTS, "mean"), **CLOSE)


@pytest.mark.parametrize(("attends", "rows"), [(True, 2), (False, 8)])
def test_batches_are_as_large_as_what_is_computed(folder, monkeypatch, attends, rows):
    """An encoder that attends to padding computes `max_seq_length` tokens of every text."""
    encoder = load_encoder(folder, max_seq_length=16, dtype="float32", device="cpu")
    encoder.model.config.attend_to_padding = attends
    monkeypatch.setattr(embeddings, "TOKENS_PER_BATCH", {"cpu": 32})
    computed, states = [], encoder.states
    monkeypatch.setattr(encoder, "states", lambda ids: computed.append(len(ids)) or states(ids))
    embedder_of(encoder).vectors(["the", "cat", "dog", "mat", "ran", "sat", "on", "a"], "mean")
    assert max(computed) == rows


def test_encode_encodes_a_text_once(embedder):
    embedder.vectors(TEXTS + TEXTS, "mean")
    assert embedder.num_encoded == len(TEXTS)


def test_encode_encodes_nothing_for_another_plain_pooling(embedder):
    embedder.vectors(TEXTS, "mean")
    embedder.vectors(TEXTS, "max")
    assert embedder.num_encoded == len(TEXTS)


def test_encode_encodes_once_for_all_groups(embedder):
    embedder.encode(TEXTS, embedder.groups_for(["mean", "attention"], trained=True))
    embedder.vectors(TEXTS, "attention")
    embedder.vectors(TEXTS, "mean")
    embedder.token_states(TEXTS)
    assert embedder.num_encoded == len(TEXTS)


def test_encode_makes_only_the_groups_that_are_missing(encoder, tmp_path, monkeypatch):
    embedder = embedder_of(encoder, tmp_path)
    embedder.encode(TEXTS, embedder.groups_for(["mean"], trained=True))
    before = shards(tmp_path)
    monkeypatch.setattr(type(encoder), "states", None)  # Word embeddings need none.
    embedder.encode(TEXTS, embedder.groups_for(["mean", "embeddings"], trained=True))
    (new,) = set(shards(tmp_path)) - set(before)
    assert new.name.startswith("embeddings-")


def test_encode_encodes_only_new_texts(embedder):
    embedder.vectors(TEXTS[:2], "mean")
    embedder.vectors(TEXTS, "mean")
    assert embedder.num_encoded == len(TEXTS)


def test_encode_returns_a_key_per_text(embedder):
    assert embedder.encode(TEXTS[:2] + TEXTS[:1], ["plain"]) == [text_key(text) for text in TEXTS[:2] + TEXTS[:1]]


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_encode_refuses_states_that_are_not_finite(folder, poison):
    encoder = load_encoder(folder, dtype="float32", device="cpu")
    scale_states(encoder, poison)
    with pytest.raises(UserError, match="the states of 2 texts are not finite, such as those of 'a "):
        embedder_of(encoder).vectors(["a cat", "a dog"], "mean")


def test_encode_names_the_text_whose_states_are_not_finite(folder):
    encoder = load_encoder(folder, dtype="float32", device="cpu")
    encoder.model.get_input_embeddings().weight[encoder.tokenizer.convert_tokens_to_ids("dog")] = float("nan")
    with pytest.raises(UserError, match="the states of 1 texts are not finite, such as those of 'a dog'"):
        embedder_of(encoder).vectors(["a cat", "a dog", "a mat"], "mean")


@pytest.mark.parametrize(
    ("poolings", "trained", "groups"),
    [
        (["mean"], False, ["plain"]),
        (["weighted", "cls", "max"], False, ["plain"]),
        (["attention"], False, ["attention-3"]),
        (["attention", "mean"], False, ["plain", "attention-3"]),
        (["mean"], True, ["plain", "states"]),
    ],
)
def test_groups_for_names_what_the_poolings_need(embedder, poolings, trained, groups):
    assert embedder.groups_for(poolings, trained) == groups


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_second_embedder_on_a_cache_encodes_nothing(encoder, tmp_path, pooling):
    embedder_of(encoder, tmp_path).vectors(TEXTS, pooling)
    second = embedder_of(encoder, tmp_path)
    second.vectors(TEXTS, pooling)
    assert second.num_encoded == 0


def test_second_embedder_on_a_cache_gives_the_same_vectors(encoder, tmp_path):
    made = embedder_of(encoder, tmp_path).vectors(TEXTS, "attention")
    assert torch.equal(embedder_of(encoder, str(tmp_path)).vectors(TEXTS, "attention"), made)


def test_second_embedder_on_a_cache_gives_the_same_token_states(encoder, tmp_path):
    made = embedder_of(encoder, tmp_path).token_states(TEXTS)
    assert torch.equal(embedder_of(encoder, tmp_path).token_states(TEXTS).states, made.states)


def test_another_encoder_on_a_cache_encodes_again(encoder, tiny_encoder, tmp_path):
    embedder_of(encoder, tmp_path / "cache").vectors(TEXTS, "mean")
    other = load_encoder(tiny_encoder(tmp_path / "other", seed=1), dtype="float32", device="cpu")
    second = embedder_of(other, tmp_path / "cache")
    second.vectors(TEXTS, "mean")
    assert second.num_encoded == len(TEXTS)


def test_embedder_without_a_folder_forgets(encoder, embedder):
    embedder.vectors(TEXTS, "mean")
    second = embedder_of(encoder)
    second.vectors(TEXTS, "mean")
    assert second.num_encoded == len(TEXTS)


def test_cache_leaves_no_unfinished_files(encoder, tmp_path):
    embedder_of(encoder, tmp_path).vectors(TEXTS, "mean")
    assert {path.suffix for path in tmp_path.glob("*/*")} == {".safetensors"}


def test_cache_ignores_an_unfinished_file(encoder, tmp_path):
    embedder_of(encoder, tmp_path).vectors(TEXTS, "mean")
    shards(tmp_path)[0].with_suffix(".tmp").write_bytes(b"half")
    second = embedder_of(encoder, tmp_path)
    second.vectors(TEXTS, "mean")
    assert second.num_encoded == 0


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_cache_warns_of_a_damaged_shard(encoder, tmp_path, kept):
    embedder_of(encoder, tmp_path).vectors(TEXTS, "mean")
    path = shards(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.warns(UserWarning, match=f"{path.name} is damaged and left out; its texts are encoded again"):
        embedder_of(encoder, tmp_path)


def test_cache_warns_of_a_shard_of_something_else(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.warns(UserWarning, match=r"other.safetensors is damaged and left out"):
        EmbeddingCache(tmp_path)


def test_cache_reads_what_is_asked_for(tmp_path):
    """Token states may be gigabytes: a probe on pooled vectors does without them."""
    keys = [text_key("one"), text_key("two")]
    written = EmbeddingCache(tmp_path)
    written.add("states", keys, {"states": torch.ones(5, 4), "offsets": torch.tensor([0, 2, 5])})
    written.add("plain", keys, {"mean": torch.arange(8.0).view(2, 4), "max": torch.zeros(2, 4)})
    cache = EmbeddingCache(tmp_path)
    assert torch.equal(cache.get("plain", "mean", keys[::-1]), torch.arange(8.0).view(2, 4).flip(0))
    assert {name for shard in cache.shards for name in shard} == {"keys", "mean"}
    assert [len(part) for part in cache.get_states(keys).rows(torch.tensor([0, 1]))[1]] == [3, 3]


def test_cache_encodes_texts_of_a_damaged_shard_again(encoder, tmp_path):
    embedder_of(encoder, tmp_path).vectors(TEXTS[:2], "mean")
    damaged = shards(tmp_path)[0]
    embedder_of(encoder, tmp_path).vectors(TEXTS, "mean")
    damaged.write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="is damaged"):
        second = embedder_of(encoder, tmp_path)
    second.vectors(TEXTS, "mean")
    assert second.num_encoded == 2


def test_cache_gives_the_vectors_of_a_damaged_shard_again(encoder, tmp_path):
    made = embedder_of(encoder, tmp_path).vectors(TEXTS, "mean")
    shards(tmp_path)[0].write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="is damaged"):
        second = embedder_of(encoder, tmp_path)
    torch.testing.assert_close(second.vectors(TEXTS, "mean"), made, **CLOSE)


def test_cache_names_the_missing_keys():
    cache = EmbeddingCache()
    keys = [text_key(text) for text in TEXTS]
    cache.add("plain", keys[1:3], {"mean": torch.zeros(2, 4)})
    assert cache.missing("plain", keys) == [0, 3, 4]


def test_cache_keeps_groups_apart():
    cache = EmbeddingCache()
    keys = [text_key(text) for text in TEXTS]
    cache.add("plain", keys, {"mean": torch.zeros(len(keys), 4)})
    assert cache.missing("states", keys) == list(range(len(keys)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b"), "a\x00b"),
        (("a", "b"), "ab"),
        (("a", "b"), ("b", "a")),
        (("a b", "c"), ("a", "b c")),
        (("a\x00b", "c"), ("a", "b\x00c")),
        ("a", "A"),
    ],
)
def test_text_key_tells_texts_apart(one, other):
    assert text_key(one) != text_key(other)


def test_text_key_is_the_same_in_every_process():
    assert text_key("the cat").hex() == "aef4041b8ba249ede09a8001bdded727"


def test_text_key_takes_a_lone_surrogate():
    assert len(text_key("\ud800")) == 16


def test_vectors_of_a_pair_are_not_those_of_its_joined_text(embedder):
    joined = embedder.vectors(["the cat a dog"], "mean")
    assert not torch.allclose(embedder.vectors([("the cat", "a dog")], "mean"), joined)


def test_token_states_are_those_of_each_text(encoder, embedder):
    expected = torch.cat([states_of(encoder, text)[0][0] for text in TEXTS])
    torch.testing.assert_close(embedder.token_states(TEXTS).states, expected, **CLOSE)


def test_token_states_keep_order_and_duplicates(embedder):
    texts = [TEXTS[2], TEXTS[1], TEXTS[2]]
    states, mask = embedder.token_states(texts).rows(torch.tensor([0, 2]))
    assert mask.all() and torch.equal(states[0], states[1])


def test_token_states_of_several_shards_equal_those_of_one(encoder, small_shards, monkeypatch):
    several = embedder_of(encoder).token_states(TEXTS).states
    monkeypatch.undo()
    torch.testing.assert_close(several, embedder_of(encoder).token_states(TEXTS).states, **CLOSE)


def test_token_states_count_texts(embedder):
    assert len(embedder.token_states(TEXTS)) == len(TEXTS)


def test_token_states_know_the_longest_text(encoder, embedder):
    assert embedder.token_states(TEXTS).longest == max(map(len, encoder.tokenize(TEXTS)))


def test_rows_pad_on_the_right():
    tokens = TokenStates(torch.arange(6.0)[:, None], torch.tensor([0, 2, 5, 6]))
    assert tokens.rows(torch.tensor([2, 1, 0]))[1].tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]]


def test_rows_give_the_chosen_texts_in_order():
    tokens = TokenStates(torch.arange(6.0)[:, None], torch.tensor([0, 2, 5, 6]))
    states, mask = tokens.rows(torch.tensor([2, 1, 0]))
    assert states[mask].flatten().tolist() == [5, 2, 3, 4, 0, 1]


def test_rows_are_as_wide_as_the_longest_chosen_text():
    tokens = TokenStates(torch.arange(6.0)[:, None], torch.tensor([0, 2, 5, 6]))
    assert tokens.rows(torch.tensor([2, 0]))[0].shape == (2, 2, 1)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_rows_can_be_pooled(encoder, embedder, pooling):
    pooled = POOLINGS[pooling](*embedder.token_states(TEXTS).rows(torch.arange(len(TEXTS))))
    torch.testing.assert_close(pooled, expected_vectors(encoder, TEXTS, pooling), **CLOSE)


@pytest.mark.parametrize(
    ("group", "name"), [("plain", "mean"), ("plain", "max"), ("attention-3", "attention"), ("states", "states")]
)
def test_bfloat16_encoders_are_stored_in_half_precision(half_encoder, tmp_path, group, name):
    embedder_of(half_encoder, tmp_path).encode(TEXTS, [group])
    with safe_open(shards(tmp_path)[0], "pt") as file:
        assert file.get_tensor(name).dtype == torch.float16


def test_float32_encoders_are_stored_in_full_precision(encoder, tmp_path):
    embedder_of(encoder, tmp_path).vectors(TEXTS, "mean")
    with safe_open(shards(tmp_path)[0], "pt") as file:
        assert file.get_tensor("mean").dtype == torch.float32


def test_half_precision_keeps_the_vectors_of_bfloat16(half_encoder):
    expected = expected_vectors(half_encoder, TEXTS, "cls")
    # Bfloat16 has 8 bits, and padding changes the order of its sums.
    torch.testing.assert_close(embedder_of(half_encoder).vectors(TEXTS, "cls"), expected, rtol=0.03, atol=0.03)


def test_values_beyond_half_precision_are_stored_in_full(half_encoder, tmp_path):
    scale_states(half_encoder, 1e6)
    embedder_of(half_encoder, tmp_path).vectors(TEXTS, "max")
    with safe_open(shards(tmp_path)[0], "pt") as file:
        assert file.get_tensor("max").dtype == torch.float32


def test_values_beyond_half_precision_stay_finite(half_encoder):
    scale_states(half_encoder, 1e6)
    assert embedder_of(half_encoder).token_states(TEXTS).states.isfinite().all()


def test_vectors_are_float32_whatever_is_stored(half_encoder):
    assert embedder_of(half_encoder).vectors(TEXTS, "mean").dtype == torch.float32


def test_rows_are_float32_whatever_is_stored(half_encoder):
    assert embedder_of(half_encoder).token_states(TEXTS).rows(torch.tensor([0]))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PREDREC_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own/embeddings"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/predrec/embeddings"),
        ({"HOME": "/home/me"}, "/home/me/.cache/predrec/embeddings"),
    ],
)
def test_default_cache_dir_follows_the_environment(monkeypatch, variables, expected):
    for name in ("PREDREC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_cache_dir() == Path(expected)
