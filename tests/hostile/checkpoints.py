"""Encoders and checkpoints that are broken, not what they say, or run code when they are read."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from predrec.trainers.integrity import CHECKSUMS_FILE

from .cases import INIT, RAN, Case, Made, ProcessCase, tiny

Edit = Callable[[Path], object]
WEIGHTS = "model.safetensors"


class Evil:
    """What writes a file when it is unpickled."""

    def __init__(self, ran: Path):
        self.ran = ran

    def __reduce__(self):
        return open, (str(self.ran), "w")


def init(edit: Edit) -> Callable[[Path, Made], list[str]]:
    """A tiny run that begins with an encoder whose folder was edited."""

    def arrange(folder: Path, made: Made) -> list[str]:
        edit(made.copy("encoder", folder / "bad"))
        return ["--train_file", "corpus.txt", "--output_dir", "run", *INIT, "--init_from", "bad"]

    return arrange


def resume(edit: Edit, checksums: bool = False) -> Callable[[Path, Made], list[str]]:
    """A tiny run that goes on from an edited checkpoint, as of another program: without checksums to tell."""

    def arrange(folder: Path, made: Made) -> list[str]:
        checkpoint = made.copy("run", folder / "run") / "checkpoint-2"
        if not checksums:
            (checkpoint / CHECKSUMS_FILE).unlink()
        edit(checkpoint)
        return tiny("--resume_from_checkpoint", "run/checkpoint-2")

    return arrange


def content(name: str, data: bytes | str) -> Edit:
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def configured(**values: Any) -> Edit:
    """Changes the configuration."""

    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | values), encoding="utf-8")

    return edit


def header(value: Any, length: int | None = None, data: bytes = b"\0" * 24) -> Edit:
    """Weights with a header of one's own making."""
    text = json.dumps(value).encode()
    return content(WEIGHTS, struct.pack("<Q", len(text) if length is None else length) + text + data)


def pickled_instead(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil(folder.parent / RAN)}))


def pickled_state(name: str) -> Edit:
    return lambda folder: torch.save({"state": Evil(_beside(folder) / RAN)}, folder / name)


def _beside(folder: Path) -> Path:
    """The folder of the case, in which the checkpoint's run is."""
    return folder.parents[1]


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Edit:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return edit


def index(part: str) -> Edit:
    """Weights in parts, of which the only one is elsewhere."""

    def edit(folder: Path) -> None:
        shutil.move(folder / WEIGHTS, folder.parent / "elsewhere.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": part}}))

    return edit


def with_code(model_type: str) -> Edit:
    def edit(folder: Path) -> None:
        configured(model_type=model_type, auto_map={"AutoConfig": "evil.C", "AutoModelForMaskedLM": "evil.M"})(folder)
        (folder / "evil.py").write_text(f"open({str(folder.parent / RAN)!r}, 'w')\n")

    return edit


def is_from(*parts: str) -> tuple[str, ...]:
    return ("`init_from`", "'bad'", *parts)


WHOLE = "Give a checkpoint with whole weights in safetensors"
EARLIER = ("'run/checkpoint-2'", "Use an earlier checkpoint")
A, B = ({"dtype": "F32", "shape": [4], "data_offsets": offsets} for offsets in ([0, 16], [8, 24]))

CASES = (
    ProcessCase("pickle instead of weights", init(pickled_instead), is_from("pytorch_model.bin is not read", WHOLE)),
    ProcessCase("code for an unknown model", init(with_code("evil")), is_from("no such code is run here")),
    ProcessCase("header without end", init(header({}, 2**63)), is_from("header too large", WHOLE)),
    Case("header longer than the file", init(header({}, 10**7)), is_from("invalid header length", WHOLE)),
    Case("tensors on top of one another", init(header({"a": A, "b": B})), is_from("invalid offset", WHOLE)),
    Case("header that is no JSON", init(content(WEIGHTS, struct.pack("<Q", 8) + b"[" * 8)), is_from(WHOLE)),
    Case("weights cut short", init(lambda f: content(WEIGHTS, (f / WEIGHTS).read_bytes()[:-9])(f)), is_from(WHOLE)),
    Case("no weights", init(lambda folder: (folder / WEIGHTS).unlink()), is_from("no file named", WHOLE)),
    Case(
        "index that leads outside",
        init(index("../elsewhere.safetensors")),
        is_from("'../elsewhere.safetensors'", "no file of safetensors beside it"),
    ),
    Case("index that names a pickle", init(index("evil.bin")), is_from("'evil.bin'", "no file of safetensors")),
    Case("weights of another model", init(configured(model_type="roberta")), is_from("would be random")),
    Case("weights of another size", init(configured(hidden_size=32)), is_from(WHOLE)),
    Case(
        "weight missing", init(weights(lambda t: t.pop("bert.encoder.layer.0.output.dense.weight"))), is_from("1 wei")
    ),
    Case("weights that are NaN", init(weights(lambda t: next(iter(t.values())).fill_(torch.nan))), is_from("NaN")),
    Case("configuration cut short", init(content("config.json", '{"model_ty')), is_from("config.json")),
    Case("configuration nested too deep", init(content("config.json", "[" * 100_000)), is_from("recursion")),
    Case("width of a thousand million", init(configured(hidden_size=10**9)), is_from("`hidden_size` is 1000000000")),
    Case("layers below none", init(configured(num_hidden_layers=-3)), is_from("`num_hidden_layers` is -3")),
    Case("width that is text", init(configured(hidden_size="wide")), is_from("hidden_size", "wide")),
    Case("type that is none", init(configured(dtype="evil")), is_from("evil")),
    ProcessCase(
        "optimizer that runs code",
        resume(pickled_state("optimizer.pt")),
        (*EARLIER, "optimizer.pt cannot be used", "could run code"),
    ),
    Case("schedule that runs code", resume(pickled_state("scheduler.pt")), (*EARLIER, "scheduler.pt", "run code")),
    Case("random state that runs code", resume(pickled_state("rng_state.pth")), (*EARLIER, "rng_state.pth")),
    Case("random state of nothing", resume(lambda f: torch.save({}, f / "rng_state.pth")), (*EARLIER, "rng_state")),
    ProcessCase(
        "checkpoint of pickles",
        resume(lambda folder: shutil.move(folder / WEIGHTS, folder / "pytorch_model.bin")),
        (*EARLIER, "no model.safetensors", "pytorch_model.bin is not read"),
    ),
    Case("checkpoint with a broken header", resume(header({}, 2**63)), (*EARLIER, WEIGHTS, "header too large")),
    Case("checkpoint that lacks a weight", resume(weights(lambda t: t.popitem())), ("'run/checkpoint-2' lacks the",)),
    Case(
        "checkpoint with a weight of another shape",
        resume(weights(lambda tensors: tensors.update({min(tensors): torch.zeros(3, 5)}))),
        ("'run/checkpoint-2'", "has shape (3, 5)", "no checkpoint of this model"),
    ),
    Case("state that is a list", resume(content("trainer_state.json", "[]")), (*EARLIER, "trainer_state.json")),
    Case("state of a negative step", resume(content("trainer_state.json", '{"global_step": -1}')), EARLIER),
    Case("state nested too deep", resume(content("trainer_state.json", "[" * 100_000)), EARLIER),
    Case("recipe that is a list", resume(content("recipe.json", "[]")), (*EARLIER, "recipe.json", "not a mapping")),
    Case(
        "optimizer of another model",
        resume(lambda f: torch.save({"state": {}, "param_groups": []}, f / "optimizer.pt")),
        ("`resume_from_checkpoint`", "'run/checkpoint-2'", "Use an earlier checkpoint"),
    ),
    ProcessCase(
        "checkpoint that was changed",
        resume(content("scheduler.pt", "x"), checksums=True),
        (*EARLIER, "scheduler.pt is not as it was written"),
    ),
)
