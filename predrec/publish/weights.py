"""The encoder to export: of a run, of one of its checkpoints, or of any model folder; online or target weights."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError, reason_of
from ..eval.encoder import check_tokenizer, load_encoder
from ..modeling import AUTO_MAP, PredRecForPreTraining
from ..quiet import quiet_loading
from ..trainers.checkpoints import checkpoints_in
from ..trainers.contents import pickles_instead
from ..trainers.integrity import check_whole, damage

SAFE = {"use_safetensors": True, "trust_remote_code": False}
"""Nothing that a checkpoint holds is run."""

TIED_HEAD = "The head is the online encoder's, but for its output matrix: that is the target encoder's embeddings."
ONLINE_HEAD = "The head is the online encoder's: the target encoder has none."
ATTENDS_TO_PADDING = "It attends to padding, as it did in training: pad all texts to the same length to compare them."
UNTRAINED_HEAD = "`objective=jepa` trained no head: its masked tokens mean nothing."


@dataclass
class Source:
    """A trained encoder in evaluation mode, on the CPU.

    Args:
        model (`PreTrainedModel`): The encoder, or the masked-LM model around it.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        description (`str`): Which weights these are, such as `the online encoder of checkpoint-400 of wikipedia`.
        notes (`list[str]`): What is worth knowing about them, in sentences.
        card (`Path`, *optional*): The model card of exactly these weights.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    description: str
    notes: list[str] = field(default_factory=list)
    card: Path | None = None


def load_source(path: str, weights: str, with_head: bool) -> Source:
    """Loads what is exported.

    Args:
        path (`str`): A run, a `checkpoint-N`, or any folder or Hub id with a masked-LM model or, without head, an
            encoder.
        weights (`"online"` or `"ema"`): `ema` is the target encoder, from the newest checkpoint of a run.
        with_head (`bool`): Load the masked-LM model; else the encoder in float32.

    Raises:
        UserError: If it cannot be loaded, weights are missing, or there is no target encoder.
    """
    folder = Path(path)
    checkpoint = folder if _model_type(folder) == "predrec_pretraining" else None
    if checkpoint is None and weights == "ema":
        found = [path for path in checkpoints_in(folder) if damage(path) is None]
        if not found:
            raise UserError(
                f"`weights` ema: {path!r} has no intact checkpoint-N, and the target encoder is kept only "
                "there. Use `--weights online`."
            )
        checkpoint = found[-1]
    if checkpoint is None and not (folder / "config.json").exists() and (found := checkpoints_in(folder)):
        raise UserError(f"The run in {path!r} did not end, so there is no trained encoder yet: export {found[-1]}.")
    if checkpoint is not None:
        source = _of_checkpoint(checkpoint, weights, with_head, None if checkpoint == folder else folder)
    elif with_head:
        source = _masked_lm(path)
    else:
        encoder = load_encoder(path, max_seq_length=10**9, dtype="float32", device="cpu")
        source = Source(encoder.model, encoder.tokenizer, f"the encoder in {encoder.name}", card=_card(folder))
    if source.model.config.model_type == "predrec":
        source.model.config.auto_map = dict(AUTO_MAP)
        if source.model.config.attend_to_padding:
            source.notes.append(ATTENDS_TO_PADDING)
    source.model.eval()
    return source


def _model_type(folder: Path) -> str | None:
    """Returns the model type in a folder's configuration; damaged files are the loader's to explain."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None


def _card(folder: Path) -> Path | None:
    return folder / "README.md" if (folder / "README.md").is_file() else None


@contextmanager
def _loading(path: str | Path) -> Iterator[None]:
    """Turns what goes wrong into a [`UserError`]."""
    try:
        with quiet_loading():
            yield
    except Exception as error:  # Damaged files raise whatever their reader raises.
        reason = reason_of(error)[:1000] + pickles_instead(Path(path))
        raise UserError(f"Cannot load {str(path)!r}: {reason}.") from error


def _masked_lm(path: str) -> Source:
    with _loading(path):
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model, info = AutoModelForMaskedLM.from_pretrained(path, **SAFE, output_loading_info=True)
    check_tokenizer(path, tokenizer)
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{path!r} has no masked-LM head, or not all of it: {len(missing)} weights are missing, such as "
            f"{missing[0]!r}. Use `--format sentence-transformers` or onnx, which need none."
        )
    name = Path(path).resolve().name if Path(path).is_dir() else path
    return Source(model, tokenizer, f"the masked-LM model in {name}", card=_card(Path(path)))


def _of_checkpoint(checkpoint: Path, weights: str, with_head: bool, run_dir: Path | None) -> Source:
    """Loads from the whole state of a training; `run_dir` is the run, if that was given."""
    check_whole(checkpoint)
    with _loading(checkpoint):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        model, info = PredRecForPreTraining.from_pretrained(
            checkpoint, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        if info["missing_keys"] or info["unexpected_keys"]:
            raise ValueError(f"the weights do not belong to the configuration: {info}")
    config, masked_lm = model.config, model.masked_lm
    masked_lm.requires_grad_(False)
    if config.padding_is_text:
        for part in filter(None, (masked_lm, model.encoder, model.target_encoder)):
            part.config.attend_to_padding = True
    notes = []
    name = checkpoint.resolve().name
    if with_head and config.objective == "jepa":
        notes.append(UNTRAINED_HEAD)
    full_name = f"{name} of {checkpoint.resolve().parent.name}"
    if weights == "online":
        return Source(
            masked_lm if with_head else model.encoder, tokenizer, f"the online encoder of {full_name}", notes
        )

    if model.target_encoder is None:
        raise UserError(
            f"`weights` ema: {name} has no target encoder, which `objective={config.objective}`"
            + (f" with `jepa_loss={config.jepa_loss}`" if config.has_jepa_branch else "")
            + " does without. Use `--weights online`."
        )
    if run_dir is not None and _differs_from_export(masked_lm, run_dir):
        notes.append(f"The encoder in the run's own folder is of another step than {name}.")
    if model.active_objective != config.objective:
        notes.append(f"The run went on with `{model.active_objective}` alone: the target encoder stopped following.")
    model.encoder.load_state_dict(model.target_encoder.state_dict())
    if with_head:
        output = masked_lm.get_output_embeddings()
        tied = output is not None and output.weight is masked_lm.get_input_embeddings().weight
        notes.append(TIED_HEAD if tied else ONLINE_HEAD)
    part = masked_lm if with_head else model.encoder
    return Source(part, tokenizer, f"the target encoder (EMA) of {full_name}", notes)


def _differs_from_export(masked_lm: PreTrainedModel, run_dir: Path) -> bool:
    """Whether a run's exported encoder has other weights than this one; `False` when there is none."""
    path = run_dir / "model.safetensors"
    if not path.is_file():
        return False
    with _loading(path):
        exported, state = load_file(path), masked_lm.state_dict()
    return any(name not in state or not torch.equal(state[name], value) for name, value in exported.items())
