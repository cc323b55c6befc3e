"""A frozen encoder: any model that `AutoModel` loads, with its tokenizer and an identity made of its weights."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..modeling.encoders import position_limit
from ..quiet import quiet_loading
from ..trainers.contents import pickles_instead
from ..trainers.hardware import has_fast_bfloat16

UNTRAINED_PARTS = ("pooler.",)
"""Parts that stock base models add, that masked-LM training does not reach and token states do not pass through."""

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN, which plans anew for every shape: here nearly every batch has its own."""

Text = str | tuple[str, str]
"""A text, or a pair that is encoded as one sequence, with the tokenizer's separator between."""


@dataclass
class FrozenEncoder:
    """A model in evaluation mode that turns token ids into states.

    Args:
        name (`str`): Name of its folder or its Hub id.
        model (`PreTrainedModel`): The encoder.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        max_seq_length (`int`): Longer texts are cut.
        dtype (`torch.dtype`): float32, or bfloat16 for autocast.
        pad_token_id (`int`): Id at padding, which is masked.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_seq_length: int
    dtype: torch.dtype
    pad_token_id: int

    def __post_init__(self):
        self.model.eval()
        self.weights = hash_weights(self.model)
        self.fingerprint = fingerprint(self)

    @property
    def hidden_size(self) -> int:
        return self.model.config.hidden_size

    def describe(self) -> dict[str, Any]:
        """Returns what results say of the encoder."""
        config = self.model.config
        return {
            "folder": self.name,
            "weights": self.weights,
            "fingerprint": self.fingerprint,
            "model_type": config.model_type,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": getattr(config, "num_hidden_layers", None),
            "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "max_seq_length": self.max_seq_length,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    def tokenize(self, texts: Sequence[Text]) -> list[list[int]]:
        """Returns the token ids of each text, special tokens included.

        Raises:
            UserError: If a text has no token.
        """
        if not texts:
            return []
        check_texts(texts)
        pairs = isinstance(texts[0], tuple)
        if any(isinstance(text, tuple) != pairs for text in texts):
            raise ValueError("`texts` mixes single texts and pairs.")
        arguments = [list(column) for column in zip(*texts, strict=True)] if pairs else [list(texts)]
        ids = self.tokenizer(
            *arguments, truncation=True, max_length=self.max_seq_length, return_attention_mask=False, verbose=False
        )["input_ids"]
        for text, tokens in zip(texts, ids, strict=True):
            if not tokens:
                raise UserError(f"{self.name}: the text {text!r} has no token, so it has no vector. Drop it.")
        return ids

    def width(self, longest: int) -> int:
        """Returns how many tokens are computed of each text of a batch whose longest has `longest`."""
        # What attends to padding gives the same states only at the same length.
        return self.max_seq_length if getattr(self.model.config, "attend_to_padding", False) else longest

    @torch.inference_mode()
    def states(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Encodes token ids of any lengths as one batch. Segments are not told apart: a pair is one text.

        An encoder that attends to padding (`config.attend_to_padding`) gets `max_seq_length` tokens of every text.

        Returns:
            States, float32 of shape `(batch_size, sequence_length, hidden_size)`, and the bool mask of real tokens,
            `(batch_size, sequence_length)`.
        """
        lengths = torch.tensor([len(row) for row in ids])
        longest = int(lengths.max())
        width = self.width(longest)
        rows = [[*row, *[self.pad_token_id] * (width - len(row))] for row in ids]
        device = self.model.device
        input_ids, mask = torch.tensor(rows, device=device), (torch.arange(width) < lengths[:, None]).to(device)
        # Without padding there is no mask to pass, and the fastest attention kernels apply.
        attention_mask = None if int(lengths.min()) == width else mask.long()
        half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.dtype != torch.float32)
        with half, sdpa_kernel(KERNELS):
            output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return output.last_hidden_state[:, :longest].float(), mask[:, :longest]

    @torch.inference_mode()
    def word_embeddings(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Returns the word embeddings of token ids, as the table has them: the encoder does not run.

        Returns:
            Float32 of shape `(batch_size, sequence_length, embedding_size)`, and the bool mask of the tokens that are
            words, `(batch_size, sequence_length)`: those that are not special or, in a text without any, all of them.
        """
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        longest = max(map(len, ids))
        words = [[token not in special for token in row] for row in ids]
        words = [row if any(row) else [True] * len(row) for row in words]
        device = self.model.device
        mask = torch.tensor([row + [False] * (longest - len(row)) for row in words], device=device)
        rows = torch.tensor([[*row, *[self.pad_token_id] * (longest - len(row))] for row in ids], device=device)
        return self.model.get_input_embeddings()(rows).float(), mask


def check_texts(texts: Sequence[Text]) -> None:
    """Raises `UserError` if what is given is no sequence of texts, or of pairs as tuples: one text is one, too."""
    if isinstance(texts, str) or not all(isinstance(text, str | tuple) for text in texts):
        raise UserError(f"`texts` is {texts!r:.60}; it must be a list of texts, or of pairs of them as tuples.")


def best_dtype(name: str, device: torch.device) -> torch.dtype:
    """Returns the type that `auto`, `float32` or `bfloat16` stands for: `auto` is bfloat16 where it is fast."""
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32


def load_encoder(
    path: str | Path,
    max_seq_length: int = 128,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
) -> FrozenEncoder:
    """Loads an encoder for evaluation.

    Args:
        path (`str`): Directory or Hub id. Of a sentence-transformers directory, its transformer is taken, not its
            own pooling.
        max_seq_length (`int`, defaults to 128): Longest text, in tokens; cut to what the encoder takes.
        dtype (`"auto"`, `"float32"` or `"bfloat16"`, defaults to `"auto"`):
            Of the computation; `auto` is bfloat16 where the machine has it.
        device (`str`, *optional*): CUDA if there is a device, else the CPU.
        trust_remote_code (`bool`, defaults to `False`): Run model code that the directory carries.

    Raises:
        UserError: If it cannot be loaded, weights are missing, or there is no padding token.
    """
    if dtype not in ("auto", "float32", "bfloat16"):
        raise UserError(f"`dtype` is {dtype!r}; it must be auto, float32 or bfloat16.")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = Path(path).resolve().name if Path(path).is_dir() else str(path)
    path = _transformer_folder(Path(path)) if Path(path).is_dir() else path
    tokenizer, model, info = _read(path, trust_remote_code)
    _check(name, tokenizer, model, info)
    for part in {key.split(".")[0] for key in info["missing_keys"]}:
        setattr(model, part, None)  # Random at every load, it would give the weights another name each time.
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else getattr(model.config, "pad_token_id", None)
    if pad is None:
        raise UserError(
            f"{name}: neither the tokenizer nor the configuration has a padding token. Set one, such as "
            "`tokenizer.pad_token = tokenizer.eos_token`, and save the tokenizer."
        )
    longest = min(position_limit(model), tokenizer.model_max_length)
    model = model.to(device).eval().requires_grad_(False)
    return FrozenEncoder(name, model, tokenizer, min(max_seq_length, longest), best_dtype(dtype, device), int(pad))


def _read(
    path: str | Path, trust_remote_code: bool
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, dict[str, Any]]:
    """Reads a tokenizer and a base model, with what transformers says of its weights."""
    try:
        with quiet_loading():  # What is returned says what was loaded; unused heads are expected.
            config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
            if config.model_type == "predrec_pretraining":
                raise UserError("it is a checkpoint of a training; the trained encoder is in the run's own directory.")
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
            model, info = AutoModel.from_pretrained(
                path,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `_check` refuses them, by name.
            )
    except Exception as error:  # Damaged files raise whatever their reader raises.
        words = " ".join(str(error).split())[:1000] + pickles_instead(Path(path))
        raise UserError(f"Cannot load an encoder from {str(path)!r}: {words}") from error
    return tokenizer, model, info


def _check(name: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Raises `UserError` if what was loaded is no trained encoder, or not one with this tokenizer."""
    missing = [key for key in info["missing_keys"] if not key.startswith(UNTRAINED_PARTS)]
    missing += [f"{key} (another size)" for key, *_ in info["mismatched_keys"]]
    if missing:
        raise UserError(
            f"{name}: {len(missing)} weights are not in the checkpoint and would be random, such as "
            f"{sorted(missing)[0]!r}. It is no checkpoint of a {model.config.model_type}."
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise UserError(f"{name} is an encoder-decoder; an encoder is needed.")
    check_tokenizer(name, tokenizer)
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens but the encoder {model.config.vocab_size}: they do "
            "not belong together."
        )


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Checks that a tokenizer has words: where there are no files of one, transformers makes one that has none.

    Raises:
        UserError: If every text would be a row of unknown tokens.
    """
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise UserError(
            f"{name}: there is no tokenizer, or one without words: save that of the encoder in the same folder."
        )


def _transformer_folder(path: Path) -> Path:
    """Returns the folder of the transformer inside a sentence-transformers directory."""
    modules = path / "modules.json"
    if modules.is_file():
        try:
            return path / json.loads(modules.read_text(encoding="utf-8"))[0]["path"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{str(modules)!r} does not list the modules of a sentence encoder: {error}") from error
    return path


def hash_weights(model: PreTrainedModel) -> str:
    """Returns a name for the weights of a model."""
    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint(encoder: FrozenEncoder) -> str:
    """Returns a name for what decides the vectors: weights, code, configuration, tokenizer, length and precision."""
    config = encoder.model.config.to_dict()
    for key in ("_name_or_path", "transformers_version", "architectures", "auto_map", "dtype"):
        config.pop(key, None)
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        words: object = [type(encoder.tokenizer).__name__, sorted(encoder.tokenizer.get_vocab().items())]
    else:
        # Truncation and padding are settings of the last call, not of the tokenizer.
        words = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    options = [encoder.max_seq_length, str(encoder.dtype), encoder.pad_token_id, encoder.tokenizer.truncation_side]
    parts = [encoder.weights, _code(encoder.model), config, words, options]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()


def _code(model: PreTrainedModel) -> str:
    """Returns a hash of the file that the model's class is written in: checkpoints may carry their own."""
    try:
        path = inspect.getsourcefile(type(model))
    except (OSError, TypeError):  # It was typed in.
        path = None
    return "" if path is None else hashlib.blake2b(Path(path).read_bytes(), digest_size=12).hexdigest()
