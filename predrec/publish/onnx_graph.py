"""The encoder as an ONNX graph, in the layout that onnxruntime's users, optimum and transformers.js expect."""

import logging
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UserError
from ..eval.pooling import POOLINGS
from ..modeling.attention import UNPADDED
from ..modeling.encoders import position_limit
from .weights import Source

OPSET = 18
INPUTS = ("input_ids", "attention_mask")
TOLERANCE = 1e-4

LARGEST_FILE = 2**31 - 2**24
"""Bytes of weights that fit into one protobuf file, with room for the graph; more go into a file beside it."""

SHAPES = ((1, 1), (1, 8), (2, 2), (3, 17), (5, 64), (2, 512))
"""Batch sizes and lengths that the graph is compared with torch on, cut to what the encoder takes."""


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pools without looking at values, as a graph must; a text without a token gets a vector that means nothing.

    Args:
        states (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`): Token states.
        mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`): 1 at real tokens.
        pooling (`"mean"`, `"cls"` or `"max"`): How.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, hidden_size)`.
    """
    real = mask[..., None].to(states.dtype)
    if pooling == "mean":
        return (states * real).sum(1) / real.sum(1).clamp(min=1)
    if pooling == "max":
        return states.masked_fill(real == 0, torch.finfo(states.dtype).min).amax(1)
    first = mask.to(torch.int32).argmax(1)[:, None, None]
    return states.gather(1, first.expand(-1, 1, states.shape[-1]))[:, 0]


class EncoderGraph(nn.Module):
    """What the graph computes: token states and, with a pooling, one vector per text.

    Args:
        encoder (`PreTrainedModel`): Base model.
        pooling (`str`, *optional*): `mean`, `cls` or `max`.
        normalize (`bool`): Give the vectors length 1.
    """

    def __init__(self, encoder: PreTrainedModel, pooling: str | None, normalize: bool):
        super().__init__()
        self.encoder, self.pooling, self.normalize = encoder, pooling, normalize

    @property
    def outputs(self) -> list[str]:
        """Names of what it returns."""
        return ["last_hidden_state"] + (["sentence_embedding"] if self.pooling else [])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.pooling is None:
            return (states,)
        vectors = pool(states, attention_mask, self.pooling)
        return states, F.normalize(vectors) if self.normalize else vectors


def write_onnx(source: Source, directory: Path, pooling: str | None, normalize: bool, max_seq_length: int) -> float:
    """Writes `onnx/model.onnx` with tokenizer and configuration beside, and compares it with torch.

    Args:
        source ([`Source`]): Without head.
        directory (`Path`): Empty.
        pooling (`str`, *optional*): Adds the output `sentence_embedding`.
        normalize (`bool`): Give the vectors length 1.
        max_seq_length (`int`): Where the tokenizer cuts. The graph takes what the encoder takes.

    Returns:
        The largest difference to torch, relative to the largest value where that is above 1.

    Raises:
        UserError: If torch cannot export the architecture, or the graph computes something else.
    """
    encoder = source.model
    # Its CPU kernel is no graph. Other encoders stay with the attention that transformers chose for them.
    if encoder.config._attn_implementation == UNPADDED:
        encoder.set_attn_implementation("sdpa")
    graph, path = EncoderGraph(encoder, pooling, normalize).eval(), directory / "onnx" / "model.onnx"
    path.parent.mkdir()
    _export(graph, path)
    difference = compare(graph, path)
    source.tokenizer.model_max_length = max_seq_length
    source.tokenizer.save_pretrained(directory)
    encoder.config.architectures = [type(encoder).__name__]
    if hasattr(encoder.config, "auto_map"):
        encoder.config.auto_map = {"AutoConfig": encoder.config.auto_map["AutoConfig"]}  # There is no code of a model.
    encoder.config.save_pretrained(directory)
    return difference


def _export(graph: EncoderGraph, path: Path) -> None:
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    limit = position_limit(graph.encoder)
    input_ids, attention_mask = _batch(graph.encoder, 2, min(16, limit), torch.Generator().manual_seed(0))
    sizes = {0: torch.export.Dim("batch_size"), 1: torch.export.Dim("sequence_length", max=limit)}
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (input_ids, attention_mask),
                input_names=list(INPUTS),
                output_names=graph.outputs,
                dynamic_shapes=dict.fromkeys(INPUTS, sizes),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # What the exporter does not know ends in any of many types.
        reason = " ".join(str(error).split())[:500]
        model_type = graph.encoder.config.model_type
        raise UserError(f"`format` onnx: torch cannot export {model_type}: {reason}. Use another format.") from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    ClearMetadataAndDocStringPass()(program.model)  # With every node: which file of this machine asked for it.
    weights = sum(tensor.nbytes for tensor in graph.state_dict().values())
    onnx_ir.save(program.model, path, external_data="model.onnx_data" if weights > LARGEST_FILE else None)


@torch.no_grad()
def compare(graph: EncoderGraph, path: Path) -> float:
    """Runs a graph and torch on batches of several sizes, with padding.

    Args:
        graph ([`EncoderGraph`]): What it should compute.
        path (`Path`): Of `model.onnx`.

    Returns:
        The largest difference at real tokens, relative to the largest value where that is above 1.

    Raises:
        UserError: If it is above 1e-4.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    generator, worst = torch.Generator().manual_seed(1), 0.0
    for batch_size, length in SHAPES:
        length = min(length, position_limit(graph.encoder))
        input_ids, mask = _batch(graph.encoder, batch_size, length, generator)
        feeds = dict(zip(INPUTS, (input_ids.numpy(), mask.numpy()), strict=True))
        found = [torch.from_numpy(output) for output in session.run(graph.outputs, feeds)]
        states = graph.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        pairs = [(found[0][mask.bool()], states[mask.bool()])]
        if graph.pooling:
            vectors = POOLINGS[graph.pooling](states, mask.bool())
            pairs.append((found[1], F.normalize(vectors) if graph.normalize else vectors))
        for ours, torchs in pairs:
            difference = ((ours - torchs).abs().max() / torchs.abs().max().clamp(min=1)).item()
            if not difference <= TOLERANCE:
                raise UserError(
                    f"`format` onnx: the graph of {graph.encoder.config.model_type} differs from torch by "
                    f"{difference:.2g} on {batch_size} texts of {length} tokens; {TOLERANCE:g} is the limit. Use "
                    "another format."
                )
            worst = max(worst, difference)
    return worst


def _batch(encoder: PreTrainedModel, batch_size: int, length: int, generator: torch.Generator) -> list[Tensor]:
    """Draws token ids and a mask, `(batch_size, sequence_length)`: the first row is full, the others are padded."""
    pad = encoder.config.pad_token_id or 0
    input_ids = torch.randint(1, encoder.config.vocab_size, (batch_size, length), generator=generator)
    input_ids = (input_ids + pad) % encoder.config.vocab_size  # Any token but padding, which RoBERTa counts by.
    lengths = torch.linspace(length, max(1, length // 3), batch_size).long()
    mask = (torch.arange(length) < lengths[:, None]).long()
    return [input_ids.where(mask.bool(), pad), mask]
