"""The folder that goes to the Hub: what belongs there is copied, made portable, and checked."""

import json
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors import SafetensorError, safe_open
from transformers import AutoModel, AutoModelForCausalLM

from ..errors import UserError
from ..quiet import quiet_loading
from ..trainers.export import check_export

PUBLISHED = (
    *("README.md", "LICENSE", "recipe.yaml", "training_curves.png", "figures/*.png"),
    *("results.json", ".eval_results/*.yaml"),
    *("config.json", "generation_config.json", "*_predrec.py", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.*", "merges.txt", "spm.model", "sentencepiece.bpe.model", "spiece.model", "bpe.codes"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "[0-9]_*/*.json"),
    *("onnx/*.onnx", "onnx/*.onnx_data", "pretraining/config.json", "pretraining/*.safetensors"),
)
"""What a repository may hold. No pickle, no optimizer state, no checkpoint for resuming: nothing else is copied."""

REQUIRED = ("config.json", "README.md", "tokenizer_config.json")

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "onnx/model.onnx")
"""One of these is required, too: weights, the index of weights in several files, or a graph."""

PORTABLE = ("README.md", "recipe.yaml", "results.json", "config.json", "tokenizer_config.json")
"""Text, in any folder, that may name folders of the machine it was written on. Vocabularies may not be touched."""

MARK = ".assembled"
"""Stands in a folder that may be assembled anew."""

ABSOLUTE_PATH = re.compile(
    r"""
    \bfile://+[^\s"'`<>|)]+                                                 # a URL of this machine
    | \b[A-Za-z]:(?:\\+(?:[\w.@+-]|[ ](?![A-Za-z]:\\))+){2,}\\*             # C:\Users\x
    | (?:\b[A-Za-z]:|(?<![\w.~<\])}*/]))/(?!/)[\w.@+*=%~#$&!{}[\]-]+        # /home/x, C:/Users/x; not of https://a/b,
      (?:/+[\w.@+*=%~#$&!{}[\]-]+)+/?                                       # a/b, </b>, [a](b)/c
    | (?<![\w/])~/[\w./*-]+
    """,
    re.VERBOSE,
)
SOURCE_FILE = re.compile(rb"(?<![\w./\\])(?:[A-Za-z]:)?(?:[/\\][\w.+@ -]+){2,}\.py\b")
"""An absolute path of Python code. In a graph, bytes of weights look like shorter paths by chance."""

WHOLE_PATH = re.compile(r"(?:file://|~[/\\]|\.\.[/\\]|(?:[A-Za-z]:)?[/\\]+[^/\\]+[/\\]).+", re.DOTALL)
"""A value that is a path as a whole: absolute, of a home, or upwards from where a run was made."""

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")


def assemble(source: Path, folder: Path, repo_id: str, license: str | None = None) -> None:
    """Fills a folder with what is to be published.

    Args:
        source (`Path`): Output folder of a run, or of `export`.
        folder (`Path`): Created; what an earlier call has put there is replaced.
        repo_id (`str`): What the card's examples will load.
        license (`str`, *optional*): Identifier for the card's metadata, such as `apache-2.0`.

    Raises:
        UserError: If the source lacks a file, the folder holds something else, or a check of [`validate`] fails.
    """
    missing = [name for name in REQUIRED if not (source / name).is_file()]
    if not any((source / name).is_file() for name in WEIGHTS):
        missing.insert(1, WEIGHTS[0])
    if missing:
        raise UserError(f"{str(source)!r} is not a finished run or export: it lacks {', '.join(missing)}.")
    _check_folder(folder, source)
    try:
        _copy(source, folder.resolve())
    except OSError as error:
        raise UserError(f"`output_dir`: cannot write {str(folder)!r}: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{str(source)!r} holds text that is not UTF-8: {error}") from error
    # The card is written anew below: what cannot be read of it would be lost.
    _raise_if_any(folder, list(_unreadable_metadata(folder)))
    address_card(folder / "README.md", repo_id, license)
    validate(folder)


def _check_folder(folder: Path, source: Path) -> None:
    """Refuses a folder that may not be emptied, or that is or holds the source, or lies in it."""
    target, origin = folder.resolve(), source.resolve()
    if target == origin or origin in target.parents:
        raise UserError(f"`output_dir`: {str(folder)!r} lies in what is to be published; choose another folder.")
    if target in origin.parents:
        raise UserError(f"`output_dir`: {str(folder)!r} holds what is to be published; choose another folder.")
    if target.exists() and not target.is_dir():
        raise UserError(f"`output_dir`: {str(folder)!r} is a file; choose another folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / MARK).is_file():
        raise UserError(f"`output_dir`: {str(folder)!r} holds something else; empty it, or choose another folder.")


def _copy(source: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    for path in published_files(source):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, folder / path)
        if path.name in PORTABLE:
            text = (folder / path).read_text(encoding="utf-8")
            (folder / path).write_text(portable(path.name, text), encoding="utf-8")


def published_files(folder: Path) -> list[Path]:
    """Returns what of a folder may be published, relative to it, sorted."""
    found = (path.relative_to(folder) for pattern in PUBLISHED for path in folder.glob(pattern) if path.is_file())
    return sorted(set(found))


def without_absolute_paths(text: str) -> str:
    """Returns the text with every absolute path cut down to its last part: in prose, a path ends before a space."""
    text = home_folder().sub("~", text)
    return ABSOLUTE_PATH.sub(lambda match: _last_part(match[0]), text)


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def home_folder() -> re.Pattern[str]:
    """Finds the home folder of whoever is at this machine, however it is reached; nothing where that is the root."""
    home = Path.home()
    if len(home.parts) < 2:
        return re.compile(r"(?!)")
    return re.compile(rf"(?<![\w.])(?:\.\.(?:[/\\]\.\.)*)?{re.escape(str(home))}(?![\w-]|\.\w)")


def portable(name: str, text: str) -> str:
    """Returns the text of a file with every path cut down to its last part.

    Values of JSON, of YAML and of the recipe that a card shows are read as what they are: such paths may hold spaces.
    """
    if name.endswith(".md"):
        blocks = re.compile(r"^(```yaml\n)(.*?)(^```)", re.DOTALL | re.MULTILINE)
        return without_absolute_paths(
            blocks.sub(lambda found: found[1] + portable(".yaml", found[2]) + found[3], text)
        )
    load, short = json.loads if name.endswith(".json") else yaml.safe_load, without_absolute_paths(text)
    try:
        values = _short(load(text))
        if load(short) == values:
            return short
    except (ValueError, yaml.YAMLError):  # Refused further on.
        return short
    if name.endswith(".json"):
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    comment = re.match(r"(?:#.*\n)*", short)[0]
    return comment + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_short(entry) for entry in value]
    if not isinstance(value, str):
        return value
    return _last_part(value) if WHOLE_PATH.fullmatch(value) else without_absolute_paths(value)


def address_card(path: Path, repo_id: str, license: str | None = None) -> None:
    """Makes the examples of a card load a repository, and writes the licence into its metadata."""
    card = ModelCard.load(path)
    card.text = re.sub(r'^directory = ".*"(  # .*)?$', f'directory = "{repo_id}"', card.text, flags=re.MULTILINE)
    if license is not None:
        card.data.license = license
        card.text = re.sub(r"^## Licence\n\n.*$", f"## Licence\n\n{license}", card.text, flags=re.MULTILINE)
    card.save(path)


def validate(folder: Path) -> None:
    """Checks a folder before it is published.

    Raises:
        UserError: If a file does not belong there, names an absolute path or holds an access token, a weight is
            missing or not finite, or the metadata cannot be read.
    """
    checks = (_stray_files, _leaks, _missing_code, _unreadable_metadata, _bad_weights)
    _raise_if_any(folder, [problem for check in checks for problem in check(folder)])
    # Of what is broken in one of the ways above, the libraries would say something less clear.
    _raise_if_any(folder, list(_incomplete(folder)))


def _raise_if_any(folder: Path, problems: list[str]) -> None:
    if problems:
        raise UserError(f"{str(folder)!r} is not fit to be published:", [f"- {one}" for one in problems])


def tree(folder: Path) -> str:
    """Returns what is published, a line per file with its size."""
    return "\n".join(f"{_size((folder / path).stat().st_size):>10}  {path}" for path in published_files(folder))


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _stray_files(folder: Path) -> Iterator[str]:
    allowed = {*published_files(folder), Path(MARK)}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or (path.is_file() and path.relative_to(folder) not in allowed):
            yield f"{path.relative_to(folder)} does not belong in a repository"


def _leaks(folder: Path) -> Iterator[str]:
    for path in published_files(folder):
        if path.suffix == ".onnx" and (source := SOURCE_FILE.search((folder / path).read_bytes())):
            yield f"{path} names a path of this machine, {source[0].decode()!r}"
        if not fnmatch(path.name, "*.json") and path.suffix not in (".md", ".yaml", ".py"):
            continue
        text = (folder / path).read_text(encoding="utf-8", errors="replace")
        if TOKEN.search(text):
            yield f"{path} holds an access token"
        found = ABSOLUTE_PATH.search(text) or home_folder().search(text) if path.name in PORTABLE else None
        if found:
            yield f"{path} names a path of this machine, {found[0]!r}"


def _missing_code(folder: Path) -> Iterator[str]:
    try:
        auto_map = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map", {})
    except (ValueError, AttributeError) as error:
        yield f"config.json cannot be read: {error}"
        return
    for module in sorted({name.partition(".")[0] for name in auto_map.values()}):
        if not (folder / f"{module}.py").is_file():
            yield f"config.json needs {module}.py, which is not there"


def _unreadable_metadata(folder: Path) -> Iterator[str]:
    try:
        ModelCard.load(folder / "README.md")
    except (ValueError, TypeError, yaml.YAMLError) as error:
        yield f"the metadata of README.md cannot be read: {error}"
    for path in folder.glob(".eval_results/*.yaml"):
        try:
            parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            yield f"{path.relative_to(folder)} cannot be read: {error}"


def _bad_weights(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as weights:
                names = weights.keys()
                bad = [name for name in names if not weights.get_tensor(name).isfinite().all()]
        except SafetensorError as error:
            yield f"{path.relative_to(folder)} cannot be read: {error}"
            continue
        if bad:
            yield f"{path.relative_to(folder)} has weights that are not finite: {', '.join(bad[:3])}"


def _incomplete(folder: Path) -> Iterator[str]:
    """Loads the weights: with the head, where there is one. A graph was compared when it was written."""
    if not any((folder / name).is_file() for name in WEIGHTS[:2]):
        return
    architectures = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    try:
        if any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures):
            check_export(folder)
            return
        kind = AutoModelForCausalLM if any(name.endswith("ForCausalLM") for name in architectures) else AutoModel
        with quiet_loading():
            _, info = kind.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        yield str(error)
        return
    # Stock encoders add a pooler, which is not trained here.
    lost = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
    for what, keys in (("missing", lost), ("unexpected", info["unexpected_keys"])):
        if keys:
            yield f"the weights do not load completely: {what} {', '.join(sorted(keys)[:3])}"
