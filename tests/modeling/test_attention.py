"""The attention over sequences laid end to end: every kernel against softmax attention written out per sequence."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel

from predrec.modeling import attention
from predrec.modeling.attention import UNPADDED, _CpuAttention, _padded_attention, unpadded_attention
from predrec.modeling.modeling_predrec import PredRecAttention, eager_attention_forward

from .tiny import encoder_config, segments_of

HEADS, HEAD_DIM = 2, 4
SCALING = HEAD_DIM**-0.5
# Double precision: the same sums in another order.
EXACT = {"rtol": 1e-10, "atol": 1e-12}
# Float32: as above, for values and gradients of size 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
MODULE = PredRecAttention(encoder_config())

# Lengths of the queries' and of the keys' sequences; a sequence without keys has no queries.
LENGTHS = {
    "one": ([5], [5]),
    "several": ([3, 7, 1, 4], [3, 7, 1, 4]),
    "other-keys": ([3, 2, 5], [4, 6, 1]),
    "one-token": ([1], [1]),
    "no-queries": ([0, 3, 0, 2], [2, 3, 4, 5]),
    "empty": ([0, 3, 0, 0, 2, 0], [0, 3, 0, 0, 2, 0]),
    "all-empty": ([0, 0], [0, 0]),
    "none": ([], []),
}


def drawn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def inputs(queries: int, keys: int, rows: int = 1, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys and values with a gradient."""
    lengths = (queries, keys, keys)
    return [drawn(rows, HEADS, length, HEAD_DIM, seed=seed, dtype=dtype) for seed, length in enumerate(lengths)]


def naive(query: Tensor, key: Tensor, value: Tensor, lengths, key_lengths, scaling: float = SCALING) -> Tensor:
    """Sequence by sequence, head by head, query by query: `(1, length, heads, head_dim)`."""
    output, begin, key_begin = [], 0, 0
    for count, key_count in zip(lengths, key_lengths, strict=True):
        for place in range(begin, begin + count):
            heads = []
            for head in range(query.shape[1]):
                keys = key[0, head, key_begin : key_begin + key_count]
                values = value[0, head, key_begin : key_begin + key_count]
                weights = (scaling * (keys * query[0, head, place]).sum(1)).exp()
                heads.append((weights[:, None] * values).sum(0) / weights.sum())
            output.append(torch.stack(heads))
        begin, key_begin = begin + count, key_begin + key_count
    return torch.stack(output)[None] if output else query.new_zeros(1, 0, *query.shape[1::2]) + 0 * query.sum()


def gradients(output: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Gradients of a sum with a weight of its own for every number; 0 where nothing reaches."""
    weights = drawn(*output.shape, seed=9, dtype=output.dtype).detach()
    found = torch.autograd.grad((output * weights).sum(), tensors, allow_unused=True)
    return [torch.zeros_like(t) if grad is None else grad for t, grad in zip(tensors, found, strict=True)]


def assert_same(actual: Tensor, expected: Tensor, tensors: list[Tensor], **close) -> None:
    """The outputs and the gradients with respect to `tensors` agree."""
    torch.testing.assert_close(actual, expected, **close)
    for one, other in zip(gradients(actual, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(one, other, **close)


# Against attention written out


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, EXACT), (torch.float32, CLOSE)], ids=str)
@pytest.mark.parametrize("case", LENGTHS)
def test_segments_equal_naive_attention(case, dtype, close):
    lengths, key_lengths = LENGTHS[case]
    tensors = inputs(sum(lengths), sum(key_lengths), dtype=dtype)
    actual, weights = unpadded_attention(
        MODULE, *tensors, None, segments=segments_of(lengths), key_segments=segments_of(key_lengths)
    )
    assert weights is None
    assert_same(actual, naive(*tensors, lengths, key_lengths), tensors, **close)


@pytest.mark.parametrize("lengths", [[4, 1, 3], [2]])
def test_keys_have_the_segments_of_the_queries_unless_told(lengths):
    tensors = inputs(sum(lengths), sum(lengths))
    actual, _ = unpadded_attention(MODULE, *tensors, None, segments=segments_of(lengths))
    assert_same(actual, naive(*tensors, lengths, lengths), tensors, **EXACT)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, EXACT), (torch.float32, CLOSE)], ids=str)
@pytest.mark.parametrize(("rows", "queries", "keys"), [(1, 5, 5), (3, 6, 6), (3, 1, 1), (2, 3, 7), (0, 4, 4)])
def test_rows_equal_eager_attention(rows, queries, keys, dtype, close):
    tensors = inputs(queries, keys, rows, dtype)
    actual, _ = unpadded_attention(MODULE, *tensors, None)
    query, key, value = tensors
    expected = ((query @ key.mT * SCALING).softmax(-1) @ value).transpose(1, 2)
    assert_same(actual, expected, tensors, **close)


def test_rows_equal_the_models_own_eager_attention():
    tensors = inputs(6, 6, rows=3, dtype=torch.float32)
    expected, _ = eager_attention_forward(MODULE.eval(), *tensors, None, SCALING)
    assert_same(unpadded_attention(MODULE, *tensors, None)[0], expected, tensors, **CLOSE)


@pytest.mark.parametrize("scaling", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("lengths", [None, [3, 4]], ids=["rows", "segments"])
def test_scaling_multiplies_the_scores(scaling, lengths):
    tensors = inputs(7, 7)
    segments = None if lengths is None else segments_of(lengths)
    actual, _ = unpadded_attention(MODULE, *tensors, None, scaling=scaling, segments=segments)
    lengths = lengths or [7]
    assert_same(actual, naive(*tensors, lengths, lengths, scaling), tensors, **EXACT)


def test_queries_without_keys_get_zero():
    """No caller makes them, but what they get must not be whatever the memory held."""
    tensors = inputs(5, 3)
    actual, _ = unpadded_attention(
        MODULE, *tensors, None, segments=segments_of([2, 3]), key_segments=segments_of([0, 3])
    )
    assert actual[:, :2].eq(0).all()
    kept = [tensors[0][:, :, 2:], *tensors[1:]]
    torch.testing.assert_close(actual[:, 2:], naive(*kept, [3], [3]), **EXACT)
    assert gradients(actual, tensors)[0][:, :, :2].eq(0).all()


def test_sequences_do_not_see_each_other():
    query, key, value = inputs(9, 9)
    segments = segments_of([4, 5])
    first, _ = unpadded_attention(MODULE, query, key, value, None, segments=segments)
    key_changed, value_changed = (torch.cat([t[:, :, :4], t[:, :, 4:] + 1], dim=2) for t in (key, value))
    second, _ = unpadded_attention(MODULE, query, key_changed, value_changed, None, segments=segments)
    assert torch.equal(first[:, :4], second[:, :4]) and not torch.equal(first[:, 4:], second[:, 4:])


def test_values_may_be_wider_than_keys():
    query, key, _ = inputs(5, 5)
    value = drawn(1, HEADS, 5, 7, seed=3)
    actual, _ = unpadded_attention(MODULE, query, key, value, None, segments=segments_of([2, 3]))
    expected = naive(query, key, value, [2, 3], [2, 3])
    assert_same(actual, expected, [query, key, value], **EXACT)


def test_large_scores_stay_finite():
    tensors = [(100 * tensor).detach().requires_grad_() for tensor in inputs(4, 4, dtype=torch.float32)]
    output, _ = unpadded_attention(MODULE, *tensors, None, segments=segments_of([4]))
    assert output.isfinite().all() and all(grad.isfinite().all() for grad in gradients(output, tensors))


# The backward pass


@pytest.mark.parametrize("case", ["one", "several", "other-keys", "one-token", "no-queries"])
def test_gradient_of_segments_equals_finite_differences(case):
    lengths, key_lengths = (segments_of(lengths) for lengths in LENGTHS[case])

    def run(query, key, value):
        return unpadded_attention(MODULE, query, key, value, None, segments=lengths, key_segments=key_lengths)[0]

    assert torch.autograd.gradcheck(run, inputs(sum(lengths.lengths), sum(key_lengths.lengths)))


def test_gradient_of_rows_equals_finite_differences():
    assert torch.autograd.gradcheck(lambda *args: unpadded_attention(MODULE, *args, None)[0], inputs(3, 5, rows=2))


def test_gradient_is_given_to_those_that_want_one():
    query, key, value = inputs(5, 5)
    segments = segments_of([2, 3])
    full, _ = unpadded_attention(MODULE, query, key, value, None, segments=segments)
    alone, _ = unpadded_attention(MODULE, query, key.detach(), value.detach(), None, segments=segments)
    assert torch.equal(gradients(alone, [query])[0], gradients(full, [query])[0])


def test_gradient_of_the_gradient_is_refused():
    tensors = inputs(3, 3)
    output, _ = unpadded_attention(MODULE, *tensors, None)
    (grad,) = torch.autograd.grad(output.pow(2).sum(), tensors[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("lengths", [None, [9, 1, 6]], ids=["rows", "segments"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_within_rounding_of_float32(dtype, lengths):
    segments = None if lengths is None else segments_of(lengths)
    tensors = inputs(16, 16, rows=1, dtype=dtype)
    wide = [tensor.detach().float().requires_grad_() for tensor in tensors]
    actual, _ = unpadded_attention(MODULE, *tensors, None, segments=segments)
    expected, _ = unpadded_attention(MODULE, *wide, None, segments=segments)
    # Scores, weights and products of size 1 to 4, each rounded once.
    close = {"rtol": 0, "atol": 8 * torch.finfo(dtype).eps}
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.float(), expected, **close)
    for one, other in zip(gradients(actual, tensors), gradients(expected, wide), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.float(), other, **close)


@pytest.mark.parametrize("lengths", [None, [3, 4]], ids=["rows", "segments"])
def test_autocast_trains_half_precision_inputs(lengths):
    segments = None if lengths is None else segments_of(lengths)
    tensors = inputs(7, 7, dtype=torch.bfloat16)
    plain, _ = unpadded_attention(MODULE, *tensors, None, segments=segments)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = unpadded_attention(MODULE, *tensors, None, segments=segments)
    assert_same(cast, plain, tensors, rtol=0, atol=0)


@pytest.mark.parametrize("lengths", [None, [3, 4]], ids=["rows", "segments"])
def test_autocast_trains_float32_inputs(lengths):
    """Under autocast matrix products may be rounded; the backward pass, which runs without it, sees what was saved."""
    segments = None if lengths is None else segments_of(lengths)
    tensors = inputs(7, 7, dtype=torch.float32)
    plain, _ = unpadded_attention(MODULE, *tensors, None, segments=segments)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = unpadded_attention(MODULE, *tensors, None, segments=segments)
    assert_same(cast.float(), plain, tensors, rtol=0, atol=8 * torch.finfo(torch.bfloat16).eps)


# Other forms of the input


@pytest.mark.parametrize("lengths", [None, [3, 0, 4]], ids=["rows", "segments"])
def test_views_of_a_fused_projection_equal_copies(lengths):
    segments = None if lengths is None else segments_of(lengths)
    fused = drawn(1, 7, 3 * HEADS * HEAD_DIM, seed=4)

    def views() -> tuple[Tensor, ...]:
        return fused.view(1, 7, 3, HEADS, HEAD_DIM).transpose(1, 3).unbind(dim=2)

    assert not any(view.is_contiguous() for view in views())
    for make in (views, lambda: [view.contiguous() for view in views()]):
        actual, _ = unpadded_attention(MODULE, *make(), None, segments=segments)
        expected = naive(*views(), lengths or [7], lengths or [7])
        assert_same(actual, expected, [fused], **EXACT)


def test_output_reshapes_to_hidden_states_without_a_copy():
    output, _ = unpadded_attention(MODULE, *inputs(6, 6, rows=2), None)
    assert output.shape == (2, 6, HEADS, HEAD_DIM) and output.is_contiguous()


def test_gradient_of_an_expanded_output_is_taken():
    tensors = inputs(4, 4)
    output, _ = unpadded_attention(MODULE, *tensors, None, segments=segments_of([1, 3]))
    expected = torch.autograd.grad(naive(*tensors, [1, 3], [1, 3]).sum(), tensors)
    # The gradient of a sum is one number, expanded.
    for one, other in zip(torch.autograd.grad(output.sum(), tensors), expected, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("most", [1, 72, 2 * 72, 10**9])
def test_size_of_the_pieces_changes_nothing(monkeypatch, most):
    """A row has 2 * 6 * 6 scores."""
    tensors = inputs(6, 6, rows=5)
    expected, _ = unpadded_attention(MODULE, *tensors, None)
    monkeypatch.setattr(attention, "MAX_SCORES", most)
    pieces = attention._row_pieces(tensors[0], tensors[1])
    assert len(pieces) == {1: 5, 72: 5, 144: 3}.get(most, 1)
    assert_same(unpadded_attention(MODULE, *tensors, None)[0], expected, tensors, **EXACT)


# The other routes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
# Sequences that are all empty are left out: there is no token that a place could point at, and no batch is like that.
@pytest.mark.parametrize("case", [case for case in LENGTHS if case != "all-empty"])
def test_padded_attention_equals_the_cpu_kernel(case, dtype):
    lengths, key_lengths = LENGTHS[case]
    tensors = inputs(sum(lengths), sum(key_lengths), dtype=dtype)
    segments, key_segments = segments_of(lengths), segments_of(key_lengths, limit=9)
    actual = _padded_attention(*tensors, SCALING, 0.0, segments, key_segments)
    expected, _ = unpadded_attention(MODULE, *tensors, None, segments=segments, key_segments=key_segments)
    assert_same(actual, expected, tensors, **(EXACT if dtype == torch.float64 else CLOSE))


def test_padded_attention_honours_scaling():
    tensors = inputs(7, 7)
    segments = segments_of([3, 4])
    actual = _padded_attention(*tensors, 2.0, 0.0, segments, segments)
    assert_same(actual, naive(*tensors, [3, 4], [3, 4], 2.0), tensors, **EXACT)


def test_padded_attention_of_queries_without_keys_is_finite():
    tensors = inputs(5, 3)
    output = _padded_attention(*tensors, SCALING, 0.0, segments_of([2, 3]), segments_of([0, 3]))
    torch.testing.assert_close(output[:, 2:], naive(tensors[0][:, :, 2:], *tensors[1:], [3], [3]), **EXACT)
    assert output.isfinite().all() and all(grad.isfinite().all() for grad in gradients(output, tensors))


@pytest.mark.parametrize("lengths", [None, [3, 4]], ids=["rows", "segments"])
def test_dropout_leaves_the_kernel_without_dropout(lengths):
    """On the weights: a value arrives with the chance that is left, and is made larger by it."""
    query, key, _ = inputs(7, 7)
    value = torch.ones(1, HEADS, 7, HEAD_DIM, dtype=torch.float64)
    segments = None if lengths is None else segments_of(lengths)
    torch.manual_seed(0)
    draws = torch.stack(
        [unpadded_attention(MODULE, query, key, value, None, dropout=0.5, segments=segments)[0] for _ in range(400)]
    )
    assert draws.std(0).min() > 0.1
    # 400 sums of weights 0 or 2 with a variance of at most 1 each.
    torch.testing.assert_close(draws.mean(0), torch.ones_like(draws[0]), rtol=0, atol=5 / 400**0.5)


def test_dropout_of_rows_is_that_of_sdpa():
    tensors = inputs(6, 6, rows=2)
    torch.manual_seed(0)
    actual, _ = unpadded_attention(MODULE, *tensors, None, dropout=0.3)
    torch.manual_seed(0)
    expected = F.scaled_dot_product_attention(*tensors, dropout_p=0.3).transpose(1, 2)
    assert_same(actual, expected, tensors, **EXACT)


def test_dropout_keeps_sequences_apart():
    query, key, value = inputs(9, 9)
    changed = torch.cat([value[:, :, :4], value[:, :, 4:] + 1], dim=2)
    outputs = []
    for values in (value, changed):
        torch.manual_seed(0)
        output, _ = unpadded_attention(MODULE, query, key, values, None, dropout=0.2, segments=segments_of([4, 5]))
        outputs.append(output)
    assert torch.equal(outputs[0][:, :4], outputs[1][:, :4]) and not torch.equal(*outputs)


def test_attention_mask_hides_what_sdpa_hides():
    tensors = inputs(6, 6, rows=2)
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    actual, _ = unpadded_attention(MODULE, *tensors, mask[:, None, None].expand(-1, 1, 6, -1))
    expected = F.scaled_dot_product_attention(*tensors, attn_mask=mask[:, None, None]).transpose(1, 2)
    assert_same(actual, expected, tensors, **EXACT)
    short = [tensor[:1, :, :4] for tensor in tensors]
    torch.testing.assert_close(actual[:1, :4], naive(*short, [4], [4]), **EXACT)


@pytest.mark.parametrize("options", [{}, {"segments": segments_of([2, 4])}], ids=["rows", "segments"])
def test_own_backward_pass_runs_on_cpus(options):
    output, _ = unpadded_attention(MODULE, *inputs(6, 6), None, **options)
    assert type(output.grad_fn).__name__ == f"{_CpuAttention.__name__}Backward"


def test_implementation_is_registered_with_transformers():
    config = encoder_config("bert")
    config._attn_implementation = UNPADDED
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    assert model.config._attn_implementation == UNPADDED
    ids = torch.arange(5, 17).view(2, 6)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    outputs = []
    for name in (UNPADDED, "eager"):
        model.set_attn_implementation(name)
        with torch.no_grad():
            outputs.append([model(ids)[0], model(ids, attention_mask=mask)[0][mask.bool()]])
    torch.testing.assert_close(*outputs, **CLOSE)


@pytest.mark.parametrize("scaling", [SCALING, 0.3])
def test_flash_attention_is_called_as_it_wants(monkeypatch, scaling):
    """Heads of a multiple of 8, its own scale, and no cuDNN, which plans for every number of tokens."""
    lengths, key_lengths = LENGTHS["other-keys"]

    def varlen_attn(query, key, value, boundaries, key_boundaries, limit, key_limit):
        assert query.shape[-1] % 8 == 0 and all(tensor.is_contiguous() for tensor in (query, key, value))
        assert torch.backends.cuda.flash_sdp_enabled() and not torch.backends.cuda.cudnn_sdp_enabled()
        assert boundaries.diff().tolist() == lengths and key_boundaries.diff().tolist() == key_lengths
        tensors = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
        return naive(*tensors, lengths, key_lengths, query.shape[-1] ** -0.5)[0]

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    tensors = inputs(sum(lengths), sum(key_lengths))
    actual = attention._flash_attention(*tensors, scaling, segments_of(lengths), segments_of(key_lengths))
    assert_same(actual, naive(*tensors, lengths, key_lengths, scaling), tensors, **EXACT)
    assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize(
    ("device", "dtype", "width", "major", "expected"),
    [
        ("cuda", torch.bfloat16, 64, 8, True),
        ("cuda", torch.float16, 30, 9, True),
        ("cuda", torch.float16, 64, 7, False),
        ("cuda", torch.float32, 64, 9, False),
        ("cuda", torch.bfloat16, 320, 9, False),
        ("xpu", torch.bfloat16, 64, 9, False),
    ],
)
def test_flash_attention_is_used_where_it_runs(monkeypatch, device, dtype, width, major, expected):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    query = SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(1, 2, 5, width))
    assert attention._has_flash_attention(query) is expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", ["several", "other-keys", "no-queries"])
def test_flash_attention_on_a_gpu_equals_the_cpu_kernel(case):
    lengths, key_lengths = LENGTHS[case]
    generator, shape = torch.Generator().manual_seed(0), (1, 2, -1, 16)
    tensors = [torch.randn(sum(n) * 32, generator=generator).view(shape) for n in (lengths, key_lengths, key_lengths)]
    segments, key_segments = segments_of(lengths, 64), segments_of(key_lengths, 64)
    results = []
    for device in ("cpu", "cuda"):
        parts = [tensor.to(device, torch.bfloat16).requires_grad_() for tensor in tensors]
        kept = {"segments": segments.to(device), "key_segments": key_segments.to(device)}
        output, _ = unpadded_attention(MODULE, *parts, None, **kept)
        output.float().square().sum().backward()
        results.append([output.cpu().float(), *(part.grad.cpu().float() for part in parts)])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=5e-2, atol=5e-2)
