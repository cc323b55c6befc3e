"""Texts to vectors: every text goes through the encoder once, whatever is done with its vectors afterwards.

What is kept of a text comes in groups: `plain` (mean, max and cls pooling), `attention-N` (N untrained draws),
`states` (the token states themselves, for poolings that are trained) and `embeddings` (the mean of word embeddings, a
bag of words that no encoder has read).
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import UserError
from ..whole_files import whole_file
from .encoder import FrozenEncoder, Text, check_texts
from .pooling import attention_draw, cls_pooling, max_pooling, mean_pooling

PLAIN = {"mean": mean_pooling, "max": max_pooling, "cls": cls_pooling}
TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 65536}
"""With padding. On a CPU, batches that fit its caches are a quarter faster than larger ones."""

SHARD_BYTES = 2**30
HALF_PRECISION_LIMIT = 60_000.0
FORMAT = "2"
"""Of the cache, raised with every change of the vectors by code outside the model's own file."""


def default_cache_dir() -> Path:
    """Returns the folder of the cache: `$PREDREC_CACHE`, or `predrec` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PREDREC_CACHE") or Path(home) / "predrec") / "embeddings"


def text_key(text: Text) -> bytes:
    """Returns 16 bytes that stand for a text or a pair."""
    words = f"{len(text[0])} {text[0]}{text[1]}" if isinstance(text, tuple) else text
    return hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=16, person=_kind(text)).digest()


def _kind(text: Text) -> bytes:
    return b"pair" if isinstance(text, tuple) else b"text"


@dataclass
class TokenStates:
    """Token states of several texts, one after the other.

    Args:
        states (`torch.Tensor` of shape `(total_tokens, hidden_size)`): As stored, in half or full precision.
        offsets (`torch.LongTensor` of shape `(num_texts + 1,)`): Where each text begins.
    """

    states: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def longest(self) -> int:
        return int(self.offsets.diff().max())

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the chosen texts, padded: states, float32 `(len(index), longest, hidden_size)`, and their mask."""
        starts, lengths = self.offsets[index], self.offsets[index + 1] - self.offsets[index]
        steps = torch.arange(int(lengths.max()))
        mask = steps < lengths[:, None]
        return self.states[(starts[:, None] + steps).clamp(max=len(self.states) - 1)].float(), mask


class StoredTensors(dict[str, Tensor]):
    """The tensors of a file, each read when it is first asked for."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def __missing__(self, name: str) -> Tensor:
        with safe_open(self.path, "pt") as file:
            self[name] = file.get_tensor(name)
        return self[name]


class EmbeddingCache:
    """Vectors of one encoder, in memory or in a folder of safetensors files that only grows.

    Args:
        folder (`Path`, *optional*): Where; in memory when absent.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.shards: list[dict[str, Tensor]] = []
        self.places: dict[str, dict[bytes, tuple[int, int]]] = {}
        for path in sorted(folder.glob("*.safetensors")) if folder is not None and folder.is_dir() else ():
            try:
                with safe_open(path, "pt") as file:
                    group = (file.metadata() or {})["group"]
                self._index(group, StoredTensors(path))
            except (SafetensorError, OSError, KeyError) as error:
                warnings.warn(f"{path} is damaged and left out; its texts are encoded again: {error}", stacklevel=2)

    def _index(self, group: str, tensors: dict[str, Tensor]) -> None:
        places = self.places.setdefault(group, {})
        for row, key in enumerate(tensors["keys"].numpy()):
            places.setdefault(key.tobytes(), (len(self.shards), row))
        self.shards.append(tensors)

    def missing(self, group: str, keys: Sequence[bytes]) -> list[int]:
        """Returns which of the keys have no entry in the group."""
        places = self.places.get(group, {})
        return [index for index, key in enumerate(keys) if key not in places]

    def add(self, group: str, keys: Sequence[bytes], tensors: dict[str, Tensor]) -> None:
        """Adds entries: tensors with one row per key, or, for `states`, `states` and `offsets`."""
        tensors = {"keys": torch.from_numpy(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16).copy()), **tensors}
        if self.folder is not None:
            with whole_file(self.folder / f"{group}-{uuid4().hex}.safetensors") as staging:
                save_file(tensors, staging, metadata={"group": group})
        self._index(group, tensors)

    def get(self, group: str, name: str, keys: Sequence[bytes]) -> Tensor:
        """Returns one row per key, float32."""
        places = [self.places[group][key] for key in keys]
        shards, rows = torch.tensor(places, dtype=torch.long).T
        first = self.shards[places[0][0]][name]
        result = torch.empty(len(keys), *first.shape[1:])
        for shard in shards.unique().tolist():
            chosen = shards == shard
            result[chosen] = self.shards[shard][name][rows[chosen]].float()
        return result

    def get_states(self, keys: Sequence[bytes]) -> TokenStates:
        """Returns the token states of the keys, in their order."""
        parts = []
        for key in keys:
            shard, row = self.places["states"][key]
            start, end = self.shards[shard]["offsets"][row : row + 2].tolist()
            parts.append(self.shards[shard]["states"][start:end])
        lengths = torch.tensor([len(part) for part in parts])
        return TokenStates(torch.cat(parts), torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]))


class Embedder:
    """Turns texts into vectors, through a cache.

    Args:
        encoder (`FrozenEncoder`): The model.
        cache_dir (`Path`, *optional*): Folder of the caches of all encoders; in memory when absent.
        num_draws (`int`, defaults to 8): Untrained attention poolings.
        progress (`bool`, defaults to `True`): Show a bar while the encoder runs.
    """

    def __init__(
        self, encoder: FrozenEncoder, cache_dir: str | Path | None = None, num_draws: int = 8, progress: bool = True
    ):
        self.encoder, self.num_draws, self.progress = encoder, num_draws, progress
        folder = None if cache_dir is None else Path(cache_dir) / f"{encoder.fingerprint}-{FORMAT}"
        self.cache = EmbeddingCache(folder)
        self.num_encoded = 0

    def vectors(self, texts: Sequence[Text], pooling: str) -> Tensor:
        """Pools each text.

        Args:
            texts (`Sequence`): Texts, or pairs.
            pooling (`str`): `mean`, `max`, `cls`, `weighted` (at its uniform start, so the mean), `attention`, or
                `embeddings`, the mean of the word embeddings.

        Returns:
            `torch.FloatTensor` of shape `(num_texts, hidden_size)`; for `attention`,
            `(num_texts, num_draws, hidden_size)`.
        """
        if pooling not in (*PLAIN, "weighted", "attention", "embeddings"):
            raise UserError(f"`pooling` is {pooling!r}; it must be mean, max, cls, weighted, attention or embeddings.")
        group = {"attention": f"attention-{self.num_draws}", "embeddings": "embeddings"}.get(pooling, "plain")
        keys = self.encode(texts, [group])
        return self.cache.get(group, {"weighted": "mean"}.get(pooling, pooling), keys)

    def token_states(self, texts: Sequence[Text]) -> TokenStates:
        """Returns the token states of each text."""
        return self.cache.get_states(self.encode(texts, ["states"]))

    def groups_for(self, poolings: Sequence[str], trained: bool = False) -> list[str]:
        """Returns the groups that the poolings need, to encode for all of them at once."""
        groups = ["plain"] if set(poolings) - {"attention", "embeddings"} else []
        groups += ["embeddings"] if "embeddings" in poolings else []
        groups += [f"attention-{self.num_draws}"] if "attention" in poolings else []
        return groups + (["states"] if trained else [])

    def encode(self, texts: Sequence[Text], groups: Sequence[str]) -> list[bytes]:
        """Makes sure that the groups of all texts are in the cache; returns the keys of the texts."""
        check_texts(texts)
        if not len(texts):
            raise UserError("There are no texts to encode.")
        keys = [text_key(text) for text in texts]
        missing = {group: self.cache.missing(group, keys) for group in groups}
        lacking = [group for group in groups if missing[group]]
        needed = sorted({index for group in lacking for index in missing[group]})
        first = {keys[index]: index for index in reversed(needed)}  # Each text once.
        if first:
            self._encode([texts[index] for index in first.values()], list(first), lacking)
        return keys

    def _encode(self, texts: list[Text], keys: list[bytes], groups: Sequence[str]) -> None:
        ids = self.encoder.tokenize(texts)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        widths = [self.encoder.width(len(row)) for row in ids]
        draws = self._draws() if any(group.startswith("attention") for group in groups) else None
        total = sum(map(len, ids))
        done: list[int] = []
        parts: dict[str, list[dict[str, Tensor]]] = {group: [] for group in groups}
        size = 0
        bar = tqdm(total=total, unit="token", unit_scale=True, desc=self.encoder.name, disable=not self.progress)
        with bar:  # Closed before an error is printed.
            for batch in _batches(order, widths, TOKENS_PER_BATCH.get(self.encoder.model.device.type, 8192)):
                tokens = [ids[index] for index in batch]
                read = self._read(tokens, [texts[index] for index in batch]) if set(groups) - {"embeddings"} else None
                for group in groups:
                    source = self.encoder.word_embeddings(tokens) if group == "embeddings" else read
                    made = _pooled(group, *source, draws)
                    parts[group].append(made)
                    size += sum(tensor.nbytes for tensor in made.values())
                done += batch
                bar.update(sum(len(ids[index]) for index in batch))
                if size > SHARD_BYTES:
                    self._store(done, keys, parts)
                    done, parts, size = [], {group: [] for group in groups}, 0
        if done:
            self._store(done, keys, parts)
        self.num_encoded += len(texts)

    def _read(self, tokens: list[list[int]], texts: list[Text]) -> tuple[Tensor, Tensor]:
        """Lets the encoder read a batch; refuses states that are no numbers."""
        states, mask = self.encoder.states(tokens)
        if not torch.isfinite(states).all():
            rows = torch.nonzero(~torch.isfinite(states).all(-1).all(-1))[:, 0]
            raise UserError(
                f"{self.encoder.name}: the states of {len(rows)} texts are not finite, such as those of "
                f"{texts[int(rows[0])]!r}. The encoder is broken; nothing can be said about it."
            )
        return states, mask

    def _store(self, done: list[int], keys: list[bytes], parts: dict[str, list[dict[str, Tensor]]]) -> None:
        for group, made in parts.items():
            tensors = {name: torch.cat([part[name] for part in made]) for name in made[0]}
            if "lengths" in tensors:
                lengths = tensors.pop("lengths")
                tensors["offsets"] = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
            # Half precision holds more digits than the bfloat16 that made the vectors.
            half = self.encoder.dtype == torch.bfloat16
            for name, tensor in tensors.items():
                if half and tensor.is_floating_point() and tensor.abs().max() < HALF_PRECISION_LIMIT:
                    tensors[name] = tensor.half()
            self.cache.add(group, [keys[index] for index in done], tensors)

    def _draws(self) -> Tensor:
        """Returns what each untrained attention pooling multiplies states with, `(num_draws, hidden_size)`."""
        draws = [attention_draw(self.encoder.hidden_size, seed) for seed in range(self.num_draws)]
        return torch.stack([key.T @ query for query, key in draws]).to(self.encoder.model.device)


def _batches(order: list[int], widths: list[int], most: int) -> list[list[int]]:
    """Cuts texts, sorted by length, into batches of at most `most` tokens with padding; as wide as is computed."""
    batches: list[list[int]] = []
    for index in order:
        if not batches or (len(batches[-1]) + 1) * widths[index] > most:
            batches.append([])
        batches[-1].append(index)
    return batches


def _pooled(group: str, states: Tensor, mask: Tensor, draws: Tensor | None) -> dict[str, Tensor]:
    """Returns what a group keeps of a batch, on the CPU."""
    if group == "plain":
        return {name: pool(states, mask).cpu() for name, pool in PLAIN.items()}
    if group == "embeddings":
        return {"embeddings": mean_pooling(states, mask).cpu()}
    if group == "states":
        return {"states": states[mask].cpu(), "lengths": mask.sum(1).cpu()}
    scores = states @ draws.T / states.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask[..., None], -torch.inf).softmax(1)
    return {"attention": (weights.transpose(1, 2) @ states).cpu()}
