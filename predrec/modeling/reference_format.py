"""The format of checkpoints of the original author's code of "Predict and Reconstruct", and its check."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from .modeling_predrec import sinusoidal_positions


def _blocks(prefix: str, width: str, inner: str) -> dict[str, str]:
    """Returns the shapes of transformer blocks, whose weights have the names that ours have."""
    return {
        **{f"{prefix}.*.{norm}.{kind}": width for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
        f"{prefix}.*.attn.qkv.weight": f"3{width} {width}",
        f"{prefix}.*.attn.qkv.bias": f"3{width}",
        f"{prefix}.*.attn.proj.weight": f"{width} {width}",
        f"{prefix}.*.attn.proj.bias": width,
        f"{prefix}.*.mlp.fc1.weight": f"{inner} {width}",
        f"{prefix}.*.mlp.fc1.bias": inner,
        f"{prefix}.*.mlp.fc2.weight": f"{width} {inner}",
        f"{prefix}.*.mlp.fc2.bias": width,
    }


ENCODER = {
    "token_embed.token_embed.weight": "V D",
    "pos_embed": "1 L D",
    "norm.weight": "D",
    "norm.bias": "D",
    **_blocks("blocks", "D", "F"),
}
TOKEN_REGRESSOR = {
    "proj.weight": "D D",
    "proj.bias": "D",
    "norm.weight": "D",
    "norm.bias": "D",
    "regress.weight": "V D",
    "regress.bias": "V",
}
PREDICTOR = {
    "mask_token": "1 1 P",
    "pred_pos_embed": "1 L P",
    "predictor_embed.weight": "P D",
    "predictor_embed.bias": "P",
    "predictor_norm.weight": "P",
    "predictor_norm.bias": "P",
    "predictor_proj.weight": "D P",
    "predictor_proj.bias": "D",
    **_blocks("predictor_blocks", "P", "Q"),
}

PARTS = {
    "mlm": {"encoder": ENCODER, "token_regressor": TOKEN_REGRESSOR},
    "hybrid": {
        "encoder": ENCODER,
        "token_regressor": TOKEN_REGRESSOR,
        "target_encoder": ENCODER,
        "predictor": PREDICTOR,
        "loss_weight": {"loss_weight": "1"},
    },
}
"""By training mode, the weights of each part and their shapes: V tokens, L positions, D wide, F within a feed-forward
layer; the predictor is P wide and Q within."""

IGNORED = ("training_mode", "opt", "scaler", "epoch", "loss", "batch_size", "lr", "config")
"""What else the original code saves; none of it is a weight."""

UNTRAINED = {"mlm": ("predictor", "loss_weight"), "hybrid": ()}
"""By training mode, what the original code saves without having trained it."""

RENAMED = {
    "token_embed.token_embed.": "embeddings.word_embeddings.",
    "blocks.": "layers.",
    "proj.": "dense.",
    "regress.": "decoder.",
    "predictor_embed.": "embed.",
    "predictor_blocks.": "layers.",
    "predictor_norm.": "norm.",
    "predictor_proj.": "proj.",
}
"""Our beginning for a weight's name; what is not listed has the same name."""

POSITION_TABLES = ("pos_embed", "pred_pos_embed")
"""Fixed tables, which our models compute."""

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass
class ReferenceCheckpoint:
    """A checked checkpoint.

    Args:
        training_mode (`"hybrid"` or `"mlm"`): What was trained.
        weights (`dict[str, dict[str, torch.Tensor]]`): By part, the weights by our names, float32.
        sizes (`dict[str, int]`): By the letters of `PARTS`, and the number of `blocks` and `predictor_blocks`.
        config (`Any`): What the author's code was configured with, unchecked.
        notes (`list[str]`): What was changed on the way, in words.
    """

    training_mode: str
    weights: dict[str, dict[str, Tensor]]
    sizes: dict[str, int]
    config: Any
    notes: list[str]


def check_reference_checkpoint(saved: Any, num_bytes: int) -> ReferenceCheckpoint:
    """Checks what was loaded from a file, and gives its weights our names.

    Args:
        saved (`Any`): What the file holds.
        num_bytes (`int`): Size of the file: weights that claim more are no weights.

    Raises:
        ValueError: If it is anything but a checkpoint of the original code, complete and consistent.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"it holds a {type(saved).__name__}, not the parts of a checkpoint.")
    mode = saved.get("training_mode")
    if not isinstance(mode, str) or mode not in PARTS:
        raise ValueError(f"its `training_mode` is {_shown(mode)}; it must be hybrid or mlm.")
    _check_names("part", saved, PARTS[mode], optional=(*IGNORED, *UNTRAINED[mode]))
    parts = {name: {name: saved[name]} if name == "loss_weight" else saved[name] for name in PARTS[mode]}

    notes = [
        f"`{name}` was left out: mlm does not train it" for name in UNTRAINED[mode] if saved.get(name) is not None
    ]
    sizes: dict[str, int] = {}
    for name, part in parts.items():
        if not isinstance(part, Mapping) or not all(isinstance(key, str) for key in part):
            raise ValueError(f"`{name}` is a {type(part).__name__}; it must map names to tensors.")
        if part and all(key.startswith("module.") for key in part):
            parts[name] = {key.removeprefix("module."): value for key, value in part.items()}
            notes.append(f"`module.`, which data-parallel training puts before names, was taken off `{name}`")
        _check_part(name, parts[name], PARTS[mode][name], sizes)
    tensors = [tensor for part in parts.values() for tensor in part.values()]
    if sum(tensor.nbytes for tensor in tensors) > num_bytes:
        raise ValueError("its weights claim to be larger than the file.")
    for name, part in parts.items():
        _check_values(name, part)

    halves = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors} - {"float32"})
    if halves:
        notes.append(f"{' and '.join(halves)} weights were converted to float32")
    weights = {name: _renamed(part) for name, part in parts.items()}
    return ReferenceCheckpoint(mode, weights, sizes, saved.get("config"), notes)


def _check_names(kind: str, found: Mapping, needed: Mapping, optional: tuple[str, ...] = ()) -> None:
    missing = [name for name in needed if name not in found]
    unknown = [name for name in found if name not in needed and name not in optional]
    problems = {"is missing": missing, "is not part of the format": unknown}
    for problem, names in problems.items():
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ValueError(
                f"the {kind} {_shown(names[0])}{more} {problem}: it is no checkpoint of the original code."
            )


def _check_part(name: str, part: Mapping[str, Any], shapes: dict[str, str], sizes: dict[str, int]) -> None:
    """Checks names, kinds and shapes of a part's weights; adds the sizes that it is the first to have."""
    needed = {}
    for pattern, shape in shapes.items():
        prefix, block, rest = pattern.partition(".*.")
        if not block:
            needed[pattern] = shape
            continue
        if prefix not in sizes:
            numbers = {found[1] for key in part if (found := re.match(rf"{prefix}\.(\d+)\.", key))}
            sizes[prefix] = max(len(numbers), 1)
        needed |= {f"{prefix}.{number}.{rest}": shape for number in range(sizes[prefix])}
    _check_names(f"weight of `{name}`", part, needed)
    for key, shape in needed.items():
        tensor = part[key]
        if not _is_plain(tensor):
            raise ValueError(f"{_where(name, key)} is no ordinary tensor, or an empty one.")
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{_where(name, key)} is {tensor.dtype}; it must be float32, bfloat16 or float16.")
        words = shape.split()
        if len(words) == tensor.ndim:
            for word, size in zip(words, tensor.shape, strict=True):
                if word.isalpha():
                    sizes.setdefault(word, size)
            words = [str(_size(word, sizes)) for word in words]
        if words != [str(size) for size in tensor.shape]:
            raise ValueError(
                f"{_where(name, key)} has shape {tuple(tensor.shape)}; to fit the others it must be "
                f"({', '.join(words)})."
            )


def _is_plain(value: Any) -> bool:
    """Whether something is a tensor with numbers of its own, as a state dictionary holds."""
    if type(value) not in (Tensor, Parameter) or value.layout != torch.strided:
        return False
    return value.device.type == "cpu" and value.is_contiguous() and value.numel() > 0


def _size(word: str, sizes: dict[str, int]) -> int:
    """Returns the number that "1", "D" or "3D" stands for."""
    factor, letter = re.fullmatch(r"(\d*)([A-Z]?)", word).groups()
    return int(factor or 1) * sizes.get(letter, 1)


def _check_values(name: str, part: Mapping[str, Tensor]) -> None:
    for key, tensor in part.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{_where(name, key)} holds values that are not finite: the run broke down.")
        if key in POSITION_TABLES:
            table = sinusoidal_positions(*tensor.shape[1:])
            tolerance = max(1e-5, torch.finfo(tensor.dtype).eps)
            if table.shape != tensor.shape[1:] or (table - tensor[0].float()).abs().max() > tolerance:
                raise ValueError(
                    f"{_where(name, key)} is not the fixed sinusoidal table that both codes compute: other positions "
                    "cannot be kept."
                )


def _renamed(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a part's weights by our names, float32, without its position table."""
    weights = {}
    for key, tensor in part.items():
        prefix = next((prefix for prefix in RENAMED if key.startswith(prefix)), "")
        weights[RENAMED.get(prefix, "") + key.removeprefix(prefix)] = tensor.float()
    return {key: tensor for key, tensor in weights.items() if key not in POSITION_TABLES}


def _where(part: str, key: str) -> str:
    return f"`{key}`" if key == part else f"`{key}` of `{part}`"


def _shown(name: Any) -> str:
    return repr(name)[:60]
