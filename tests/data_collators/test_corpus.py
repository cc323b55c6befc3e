import bz2
import gzip
import json
import lzma
from pathlib import Path

import datasets
import pytest

from predrec.data_collators.corpus import load_corpus
from predrec.errors import UserError

TEXTS = [f"document number {number}" for number in range(10)]


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch) -> Path:
    """A working directory with a corpus in `corpus.txt`."""
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return tmp_path


def write_jsonl(path: str, column: str = "text", values: list = TEXTS) -> None:
    Path(path).write_text("".join(json.dumps({column: value}) + "\n" for value in values), encoding="utf-8")


def documents(**arguments) -> list[str]:
    """Returns all documents, sorted, training and held-out ones together."""
    corpus = load_corpus(**arguments)
    return sorted([*corpus.train["text"], *corpus.validation["text"]])


# Formats


def test_load_corpus_reads_lines():
    assert documents(train_file=["corpus.txt"]) == TEXTS


def test_load_corpus_reads_markdown():
    Path("corpus.txt").rename("corpus.md")
    assert documents(train_file=["corpus.md"]) == TEXTS


def test_load_corpus_reads_paragraphs():
    Path("prose.txt").write_text("one\ntwo\n\nthree\nfour\n\nfive", encoding="utf-8")
    assert documents(train_file=["prose.txt"], sample_by="paragraph") == ["five", "one\ntwo", "three\nfour"]


def test_load_corpus_reads_whole_files():
    for name in ("a", "b"):
        Path(f"{name}.txt").write_text(f"{name} one\n\n{name} two", encoding="utf-8")
    loaded = documents(train_file=["a.txt", "b.txt"], sample_by="document")
    assert loaded == ["a one\n\na two", "b one\n\nb two"]


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_load_corpus_reads_json(suffix):
    write_jsonl(f"corpus.{suffix}")
    assert documents(train_file=[f"corpus.{suffix}"]) == TEXTS


def test_load_corpus_reads_parquet():
    datasets.Dataset.from_dict({"text": TEXTS, "number": range(10)}).to_parquet("corpus.parquet")
    assert documents(train_file=["corpus.parquet"]) == TEXTS


@pytest.mark.parametrize(("suffix", "module"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_load_corpus_reads_compressed_lines(suffix, module):
    with module.open(f"corpus.txt.{suffix}", "wt", encoding="utf-8") as file:
        file.write("\n".join(TEXTS))
    assert documents(train_file=[f"corpus.txt.{suffix}"]) == TEXTS


def test_load_corpus_reads_compressed_json():
    with gzip.open("corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert documents(train_file=["corpus.jsonl.gz"]) == TEXTS


def test_load_corpus_reads_suffixes_in_capitals():
    Path("corpus.txt").rename("CORPUS.TXT")
    assert documents(train_file=["CORPUS.TXT"]) == TEXTS


def test_load_corpus_reads_globs():
    for part in range(5):
        write_jsonl(f"part-{part}.jsonl", values=TEXTS[2 * part : 2 * part + 2])
    assert documents(train_file=["part-*.jsonl"]) == TEXTS


def test_load_corpus_reads_recursive_globs():
    Path("deep/er").mkdir(parents=True)
    write_jsonl("deep/er/corpus.jsonl")
    assert documents(train_file=["**/*.jsonl"]) == TEXTS


def test_load_corpus_reads_several_files_in_order():
    write_jsonl("b.jsonl", values=TEXTS[:5])
    write_jsonl("a.jsonl", values=TEXTS[5:])
    corpus = load_corpus(train_file=["b.jsonl", "a.jsonl"], validation_file=["b.jsonl"])
    assert corpus.train["text"][:] == TEXTS


@pytest.mark.parametrize("streaming", [False, True])
def test_load_corpus_reads_another_column(streaming):
    write_jsonl("corpus.jsonl", column="body")
    corpus = load_corpus(
        train_file=["corpus.jsonl"],
        validation_file=["corpus.jsonl"],
        text_column="body",
        streaming=streaming,
    )
    assert list(corpus.train) == [{"text": text} for text in TEXTS]


def test_load_corpus_keeps_the_text_column_only():
    datasets.Dataset.from_dict({"title": ["t"] * 10, "text": TEXTS}).to_parquet("corpus.parquet")
    corpus = load_corpus(train_file=["corpus.parquet"])
    assert corpus.train.column_names == corpus.validation.column_names == ["text"]


def test_load_corpus_drops_blank_documents():
    write_jsonl("corpus.jsonl", values=["one", "", "  \n", None, "two"])
    assert documents(train_file=["corpus.jsonl"]) == ["one", "two"]


def test_load_corpus_without_a_source_reads_the_documentation_of_python(monkeypatch):
    monkeypatch.setattr("predrec.data_collators.corpus.python_documents", lambda: TEXTS)
    assert documents() == TEXTS


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"train_file": ["corpus.txt"]}, "corpus.txt"),
        ({"train_file": ["./cor*.txt", "corpus.txt"]}, "cor*.txt, corpus.txt"),
        ({}, "the Python language reference and the standard library's docstrings"),
    ],
)
def test_load_corpus_describes_the_source(monkeypatch, arguments, expected):
    monkeypatch.setattr("predrec.data_collators.corpus.python_documents", lambda: TEXTS)
    assert load_corpus(**arguments).description == expected


# Validation


@pytest.mark.parametrize(("share", "most", "expected"), [(0.2, 2000, 2), (0.5, 3, 3), (0.001, 2000, 1)])
def test_load_corpus_holds_out_a_share(share, most, expected):
    corpus = load_corpus(train_file=["corpus.txt"], validation_share=share, max_validation_documents=most)
    assert (len(corpus.train), len(corpus.validation)) == (10 - expected, expected)


def test_load_corpus_holds_out_what_it_does_not_train_on():
    corpus = load_corpus(train_file=["corpus.txt"], validation_share=0.3)
    assert set(corpus.train["text"]).isdisjoint(corpus.validation["text"])


def test_load_corpus_holds_out_the_same_documents_again():
    first, second = (load_corpus(train_file=["corpus.txt"], validation_share=0.3, seed=7) for _ in range(2))
    assert first.validation["text"][:] == second.validation["text"][:]


def test_load_corpus_holds_out_by_the_seed():
    held = {tuple(load_corpus(train_file=["corpus.txt"], seed=seed).validation["text"]) for seed in range(10)}
    assert len(held) > 1


def test_load_corpus_takes_the_validation_file():
    write_jsonl("held.jsonl", values=["held out"])
    corpus = load_corpus(train_file=["corpus.txt"], validation_file=["held.jsonl"])
    assert corpus.train["text"][:] == TEXTS
    assert corpus.validation["text"][:] == ["held out"]


def test_load_corpus_limits_the_validation_file():
    corpus = load_corpus(train_file=["corpus.txt"], validation_file=["corpus.txt"], max_validation_documents=4)
    assert len(set(corpus.validation["text"])) == 4


def test_load_corpus_drops_blank_validation_documents():
    write_jsonl("held.jsonl", values=["", "held out"])
    corpus = load_corpus(train_file=["corpus.txt"], validation_file=["held.jsonl"])
    assert corpus.validation["text"][:] == ["held out"]


def test_load_corpus_holds_out_the_beginning_of_a_stream():
    corpus = load_corpus(train_file=["corpus.txt"], streaming=True, max_validation_documents=3)
    assert corpus.validation["text"][:] == TEXTS[:3]
    assert [entry["text"] for entry in corpus.train] == TEXTS[3:]


def test_load_corpus_holds_out_a_share_of_a_short_stream():
    corpus = load_corpus(train_file=["corpus.txt"], streaming=True, validation_share=0.2)
    assert corpus.validation["text"][:] == TEXTS[:2]
    assert [entry["text"] for entry in corpus.train] == TEXTS[2:]


def test_load_corpus_leaves_most_of_a_stream_that_is_as_long_as_the_limit():
    corpus = load_corpus(train_file=["corpus.txt"], streaming=True, max_validation_documents=10)
    assert len(list(corpus.train)) == 9


def test_load_corpus_drops_blank_documents_of_a_stream():
    write_jsonl("corpus.jsonl", values=["one", "", "  \n", None, "two"])
    corpus = load_corpus(train_file=["corpus.jsonl"], streaming=True)
    assert [*corpus.validation, *corpus.train] == [{"text": "one"}, {"text": "two"}]


def test_load_corpus_holds_out_of_a_stream_what_it_does_not_train_on():
    Path("spaced.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    corpus = load_corpus(train_file=["spaced.txt"], streaming=True, max_validation_documents=3)
    assert set(corpus.validation["text"]).isdisjoint(entry["text"] for entry in corpus.train)


# Errors


@pytest.mark.parametrize("streaming", [False, True])
def test_load_corpus_names_a_missing_file(streaming):
    with pytest.raises(UserError, match=r"`train_file`: 'absent.txt' does not exist"):
        load_corpus(train_file=["corpus.txt", "absent.txt"], streaming=streaming)


def test_load_corpus_names_a_missing_validation_file():
    with pytest.raises(UserError, match=r"`validation_file`: 'absent.txt' does not exist"):
        load_corpus(train_file=["corpus.txt"], validation_file=["absent.txt"])


def test_load_corpus_names_a_glob_without_files():
    with pytest.raises(UserError, match=r"`train_file`: 'absent-\*.txt' does not exist"):
        load_corpus(train_file=["absent-*.txt"])


def test_load_corpus_takes_a_directory_for_missing(tmp_path):
    Path("folder.txt").mkdir()
    with pytest.raises(UserError, match=r"`train_file`: 'folder.txt' is a directory"):
        load_corpus(train_file=["folder.txt"])


@pytest.mark.parametrize("name", ["corpus.csv", "corpus", "corpus.gz"])
def test_load_corpus_names_an_unknown_suffix(name):
    Path(name).touch()
    with pytest.raises(UserError, match=rf"`train_file`: '{name}' is none of \.txt, \.md, \.json, \.jsonl, \.parquet"):
        load_corpus(train_file=[name])


def test_load_corpus_refuses_mixed_formats():
    write_jsonl("corpus.jsonl")
    with pytest.raises(UserError, match=r"`train_file`: the files have different formats \(json, text\); give one"):
        load_corpus(train_file=["corpus.txt", "corpus.jsonl"])


@pytest.mark.parametrize("streaming", [False, True])
def test_load_corpus_names_a_missing_column(streaming):
    write_jsonl("corpus.jsonl", column="body")
    with pytest.raises(UserError, match="`text_column`: the data of `train_file` has no column 'text', but 'body'"):
        load_corpus(train_file=["corpus.jsonl"], streaming=streaming)


def test_load_corpus_names_a_missing_validation_column():
    write_jsonl("held.jsonl", column="body")
    with pytest.raises(UserError, match="`text_column`: the data of `validation_file` has no column 'text'"):
        load_corpus(train_file=["corpus.txt"], validation_file=["held.jsonl"])


@pytest.mark.parametrize("streaming", [False, True])
def test_load_corpus_refuses_a_column_that_is_not_text(streaming):
    write_jsonl("corpus.jsonl", column="number", values=list(range(10)))
    with pytest.raises(UserError, match=r"`text_column`: the column holds .*int.*, not text"):
        load_corpus(train_file=["corpus.jsonl"], text_column="number", streaming=streaming)


def test_load_corpus_refuses_a_blank_corpus():
    write_jsonl("corpus.jsonl", values=["", "  \n"])
    with pytest.raises(UserError, match="`train_file`: the corpus is empty: no document has any text"):
        load_corpus(train_file=["corpus.jsonl"])


def test_load_corpus_refuses_an_empty_file():
    Path("empty.txt").touch()
    with pytest.raises(UserError, match="`train_file`: the corpus is empty"):
        load_corpus(train_file=["empty.txt"])


def test_load_corpus_refuses_blank_validation_data():
    write_jsonl("held.jsonl", values=["", " "])
    with pytest.raises(UserError, match="`validation_file`: the corpus is empty"):
        load_corpus(train_file=["corpus.txt"], validation_file=["held.jsonl"])


def test_load_corpus_refuses_a_single_document():
    with pytest.raises(
        UserError, match=r"`train_file`: one document is not enough .* `validation_file`, .* `sample_by`"
    ):
        load_corpus(train_file=["corpus.txt"], sample_by="document")


def test_load_corpus_names_a_file_that_cannot_be_read():
    Path("broken.jsonl").write_text("{not json\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"`train_file`: cannot read 'broken.jsonl' as json: line 1 is not JSON"):
        load_corpus(train_file=["broken.jsonl"])


def test_load_corpus_names_a_file_of_another_format():
    Path("broken.parquet").write_text("no parquet", encoding="utf-8")
    with pytest.raises(UserError, match=r"`train_file`: cannot read 'broken.parquet' as parquet"):
        load_corpus(train_file=["broken.parquet"])


@pytest.mark.parametrize("streaming", [False, True])
def test_load_corpus_explains_a_dataset_that_cannot_be_loaded(streaming):
    with pytest.raises(UserError, match=r"`dataset_name`: cannot load 'nobody/nothing': .*`train_file`"):
        load_corpus(dataset_name="nobody/nothing", streaming=streaming)


# The Hub, replaced by datasets in memory


@pytest.fixture
def hub(monkeypatch) -> dict[str, datasets.Dataset]:
    """Splits that `load_dataset` returns."""
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": TEXTS})})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, streaming: splits)
    return splits


def test_load_corpus_takes_the_validation_split(hub):
    hub["validation"] = datasets.Dataset.from_dict({"text": ["held out"]})
    corpus = load_corpus(dataset_name="some/data")
    assert corpus.train["text"][:] == TEXTS
    assert corpus.validation["text"][:] == ["held out"]


def test_load_corpus_holds_out_without_a_validation_split(hub):
    corpus = load_corpus(dataset_name="some/data", validation_share=0.2)
    assert (len(corpus.train), len(corpus.validation)) == (8, 2)


def test_load_corpus_describes_a_dataset_with_its_configuration(hub):
    assert load_corpus(dataset_name="some/data", dataset_config_name="en").description == "some/data (en)"


def test_load_corpus_names_a_dataset_without_a_train_split(hub):
    hub["test"] = hub.pop("train")
    with pytest.raises(UserError, match="`dataset_name`: 'some/data' has no train split, only test"):
        load_corpus(dataset_name="some/data")


def test_load_corpus_names_the_missing_column_of_a_dataset(hub):
    with pytest.raises(UserError, match="`text_column`: the data of `dataset_name` has no column 'body'"):
        load_corpus(dataset_name="some/data", text_column="body")
