"""Each loss against a twin written as loops, and the properties that its users rely on."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from predrec.modeling import losses
from predrec.modeling.losses import (
    JEPA_LOSSES,
    barlow_twins_loss,
    cosine_loss,
    infonce_loss,
    masked_lm_loss,
    masked_mean,
    mse_loss,
    sigreg_loss,
    sigreg_statistic,
    smooth_l1_loss,
    vicreg_loss,
)

NUM_ROWS, WIDTH = 9, 5
# Double precision: a loop and a matrix product differ by rounding only.
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture
def rows():
    """Predictions, targets and a mask that leaves out two rows."""
    generator = torch.Generator().manual_seed(0)
    predicted = 2 * torch.randn(NUM_ROWS, WIDTH, generator=generator, dtype=torch.float64) + 0.3
    target = torch.randn(NUM_ROWS, WIDTH, generator=generator, dtype=torch.float64)
    mask = torch.tensor([1, 1, 0, 1, 1, 1, 0, 1, 1]).bool()
    return predicted, target, mask


def options_for(name: str, num_rows: int = NUM_ROWS) -> dict:
    """Arguments that some losses need besides rows and mask."""
    if name == "infonce":
        return {"token_ids": torch.arange(num_rows)}
    if name == "sigreg":
        directions = torch.randn(WIDTH, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return {"directions": directions}
    return {}


def kept(values: torch.Tensor, mask: torch.Tensor) -> list[list[float]]:
    """Rows that count, as plain numbers."""
    return [row.tolist() for row, use in zip(values, mask.tolist(), strict=True) if use]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def cosine(left: list[float], right: list[float]) -> float:
    return dot(left, right) / math.sqrt(dot(left, left) * dot(right, right))


def covariance(left: list[list[float]], right: list[list[float]], i: int, j: int) -> float:
    """Sample covariance of feature i of the left rows with feature j of the right rows."""
    left_mean, right_mean = mean(row[i] for row in left), mean(row[j] for row in right)
    products = [(a[i] - left_mean) * (b[j] - right_mean) for a, b in zip(left, right, strict=True)]
    return sum(products) / (len(left) - 1)


def naive_mse(predicted, target) -> float:
    return mean(mean((a - b) ** 2 for a, b in zip(p, t, strict=True)) for p, t in zip(predicted, target, strict=True))


def naive_smooth_l1(predicted, target) -> float:
    def knee(x: float) -> float:
        return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5

    return mean(mean(knee(a - b) for a, b in zip(p, t, strict=True)) for p, t in zip(predicted, target, strict=True))


def naive_vicreg(predicted, target, eps: float = 1e-5) -> float:
    """Equations 1 to 6 of the paper, divided by 25."""
    hinge = mean(max(0.0, 1 - math.sqrt(covariance(predicted, predicted, i, i) + eps)) for i in range(WIDTH))
    off = sum(covariance(predicted, predicted, i, j) ** 2 for i in range(WIDTH) for j in range(WIDTH) if i != j)
    return naive_mse(predicted, target) + hinge + 0.04 * off / WIDTH


def naive_barlow_twins(predicted, target, eps: float = 1e-5) -> float:
    def deviation(values, i: int) -> float:
        return math.sqrt(covariance(values, values, i, i) + eps)

    total = 0.0
    for i in range(WIDTH):
        for j in range(WIDTH):
            correlation = covariance(predicted, target, i, j) / deviation(predicted, i) / deviation(target, j)
            total += (1 - correlation) ** 2 if i == j else 0.005 * correlation**2
    return total / WIDTH


def naive_infonce(predicted, target, tokens, temperature: float) -> float:
    terms = []
    for i, row in enumerate(predicted):
        own = math.exp(cosine(row, target[i]) / temperature)
        others = [
            math.exp(cosine(row, other) / temperature) for j, other in enumerate(target) if tokens[j] != tokens[i]
        ]
        terms.append(-math.log(own / (own + sum(others))))
    return mean(terms)


def naive_sigreg(states, directions) -> float:
    """The definition: 17 points on [0, 5], trapezoids, both signs of t, one characteristic function per direction."""
    points = [5 * k / 16 for k in range(17)]
    totals = []
    for direction in directions.T.tolist():
        length = math.sqrt(dot(direction, direction))
        projections = [dot(state, direction) / length for state in states]
        heights = []
        for t in points:
            real, imaginary = mean(math.cos(t * x) for x in projections), mean(math.sin(t * x) for x in projections)
            normal = math.exp(-t * t / 2)
            heights.append(((real - normal) ** 2 + imaginary**2) * normal)
        totals.append(2 * sum((a + b) / 2 * 5 / 16 for a, b in itertools.pairwise(heights)))
    return mean(totals)


# Against a twin


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.ones(3), torch.zeros(3, dtype=torch.bool)) == 0


def test_cosine_loss_equals_naive_twin(rows):
    predicted, target, mask = rows
    expected = mean(1 - cosine(p, t) for p, t in zip(kept(predicted, mask), kept(target, mask), strict=True))
    torch.testing.assert_close(cosine_loss(*rows).item(), expected, **EXACT)


@pytest.mark.parametrize(("sign", "expected"), [(1, 0.0), (-1, 2.0)])
def test_cosine_loss_spans_zero_to_two(rows, sign, expected):
    _, target, mask = rows
    torch.testing.assert_close(cosine_loss(3 * sign * target, target, mask).item(), expected, **EXACT)


@pytest.mark.parametrize(
    ("loss", "twin"),
    [
        (mse_loss, naive_mse),
        (smooth_l1_loss, naive_smooth_l1),
        (vicreg_loss, naive_vicreg),
        (barlow_twins_loss, naive_barlow_twins),
    ],
)
def test_loss_equals_naive_twin(rows, loss, twin):
    predicted, target, mask = rows
    expected = twin(kept(predicted, mask), kept(target, mask))
    torch.testing.assert_close(loss(*rows).item(), expected, **EXACT)


def test_vicreg_loss_applies_the_variance_hinge(rows):
    _, target, mask = rows
    narrow = 0.1 * target
    expected = naive_vicreg(kept(narrow, mask), kept(target, mask))
    torch.testing.assert_close(vicreg_loss(narrow, target, mask).item(), expected, **EXACT)


def test_vicreg_loss_regularises_both_sides_when_asked(rows):
    predicted, target, mask = rows
    left, right = kept(predicted, mask), kept(0.1 * target, mask)
    own = naive_vicreg(left, left) + naive_vicreg(right, right)
    found = vicreg_loss(predicted, 0.1 * target, mask, regularizer_weight=0.3, regularize_targets=True)
    torch.testing.assert_close(found.item(), naive_mse(left, right) + 0.3 * own, **EXACT)


def test_barlow_twins_loss_ignores_shift_and_scale(rows):
    predicted, target, mask = rows
    moved = barlow_twins_loss(predicted, 3 * target - 7, mask)
    # The epsilon in the standard deviation is the only thing that feels the scale.
    torch.testing.assert_close(moved, barlow_twins_loss(*rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_infonce_loss_equals_naive_twin(rows, temperature):
    predicted, target, mask = rows
    tokens = list(range(int(mask.sum())))
    expected = naive_infonce(kept(predicted, mask), kept(target, mask), tokens, temperature)
    actual = infonce_loss(*rows, token_ids=torch.arange(NUM_ROWS), temperature=temperature)
    torch.testing.assert_close(actual.item(), expected, **EXACT)


def test_infonce_loss_leaves_the_same_token_out_of_the_negatives(rows):
    predicted, target, mask = rows
    token_ids = torch.tensor([0, 1, 2, 0, 3, 4, 0, 1, 5])  # Rows 0 and 3, and rows 1 and 7, are one token each.
    tokens = [row[0] for row in kept(token_ids[:, None], mask)]
    expected = naive_infonce(kept(predicted, mask), kept(target, mask), tokens, 0.1)
    torch.testing.assert_close(infonce_loss(*rows, token_ids=token_ids).item(), expected, **EXACT)


def test_infonce_loss_of_one_token_only_is_zero(rows):
    same = torch.zeros(NUM_ROWS, dtype=torch.long)
    assert infonce_loss(*rows, token_ids=same) == 0


def test_infonce_loss_contrasts_with_evenly_spread_targets(rows, monkeypatch):
    """Of the seven targets, numbers 0, 2 and 4 are negatives; every prediction is scored."""
    predicted, target, mask = rows
    monkeypatch.setattr(losses, "MAX_CONTRASTED", 3)
    predicted, target = kept(predicted, mask), kept(target, mask)
    expected = mean(
        naive_infonce([row], [target[i], *(target[j] for j in (0, 2, 4) if j != i)], range(len(target)), 0.1)
        for i, row in enumerate(predicted)
    )
    torch.testing.assert_close(infonce_loss(*rows, token_ids=torch.arange(NUM_ROWS)).item(), expected, **EXACT)


@pytest.mark.parametrize("name", ["infonce", "sigreg"])
def test_padding_does_not_change_which_rows_are_chosen(rows, name, monkeypatch):
    monkeypatch.setattr(losses, "MAX_CONTRASTED", 3)
    predicted, target, mask = rows
    options = options_for(name)
    padded = JEPA_LOSSES[name](predicted, target, mask, **options)
    if name == "infonce":
        options = {"token_ids": options["token_ids"][mask]}
    alone = JEPA_LOSSES[name](predicted[mask], target[mask], torch.ones(7, dtype=torch.bool), **options)
    torch.testing.assert_close(padded, alone, **EXACT)


def test_sigreg_statistic_equals_naive_twin(rows):
    predicted, _, mask = rows
    directions = options_for("sigreg")["directions"]
    expected = naive_sigreg(kept(predicted, mask), directions)
    torch.testing.assert_close(sigreg_statistic(predicted, mask, directions).item(), expected, **EXACT)


def test_sigreg_statistic_approximates_the_integral(rows):
    states = rows[0][:, :1]
    t = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    characteristic = torch.stack([torch.exp(1j * t * x) for x in states[:, 0]]).mean(0)
    normal = torch.exp(-t.pow(2) / 2)
    integral = torch.trapezoid((characteristic - normal).abs().pow(2) * normal, t)
    actual = sigreg_statistic(states, torch.ones(NUM_ROWS).bool(), torch.ones(1, 1, dtype=torch.float64))
    # What the 17 points and the end at |t| = 5 leave out: exp(-12.5) and less.
    torch.testing.assert_close(actual, integral, rtol=1e-4, atol=1e-5)


def normal_states(num_states: int = 4000) -> torch.Tensor:
    return torch.randn(num_states, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def statistic_of(states: torch.Tensor) -> float:
    mask = torch.ones(len(states), dtype=torch.bool)
    return sigreg_statistic(states, mask, options_for("sigreg")["directions"]).item()


def test_sigreg_statistic_is_small_for_the_normal_law():
    # Its expectation for n normal draws is the integral of (1 - exp(-t^2)) exp(-t^2 / 2) / n, about 1.06 / n.
    assert statistic_of(normal_states()) < 5 * 1.06 / losses.MAX_CONTRASTED


@pytest.mark.parametrize(
    "change", [lambda x, k: x + k, lambda x, k: x * (1 + k), lambda x, k: x / (1 + k)], ids=["shift", "wide", "narrow"]
)
def test_sigreg_statistic_grows_with_the_departure_from_normal(change):
    values = [statistic_of(change(normal_states(), k)) for k in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values) and values[1] > 10 * values[0]


def test_sigreg_statistic_ignores_the_length_of_directions(rows):
    predicted, _, mask = rows
    directions = options_for("sigreg")["directions"]
    torch.testing.assert_close(
        sigreg_statistic(predicted, mask, 5 * directions), sigreg_statistic(predicted, mask, directions), **EXACT
    )


def test_sigreg_loss_adds_weighted_statistic_to_mse(rows):
    directions = options_for("sigreg")["directions"]
    expected = mse_loss(*rows) + 0.3 * sigreg_statistic(rows[1], rows[2], directions)
    torch.testing.assert_close(sigreg_loss(*rows, directions=directions, regularizer_weight=0.3), expected, **EXACT)


# What all have in common


@pytest.mark.parametrize("name", JEPA_LOSSES)
def test_loss_ignores_row_order(rows, name):
    order = torch.tensor([4, 0, 8, 2, 6, 1, 7, 3, 5])
    options = options_for(name)
    actual = JEPA_LOSSES[name](*(value[order] for value in rows), **options)
    torch.testing.assert_close(actual, JEPA_LOSSES[name](*rows, **options), **EXACT)


@pytest.mark.parametrize("name", JEPA_LOSSES)
def test_loss_ignores_values_of_masked_rows(rows, name):
    predicted, target, mask = rows
    options = options_for(name)
    changed = predicted.masked_fill(~mask[:, None], 50.0), target.masked_fill(~mask[:, None], -9.0), mask
    torch.testing.assert_close(JEPA_LOSSES[name](*changed, **options), JEPA_LOSSES[name](*rows, **options), **EXACT)


@pytest.mark.parametrize("name", JEPA_LOSSES)
def test_loss_ignores_number_of_masked_rows(rows, name):
    predicted, target, mask = rows
    more = F.pad(predicted, (0, 0, 0, 4), value=1.0), F.pad(target, (0, 0, 0, 4), value=2.0), F.pad(mask, (0, 4))
    actual = JEPA_LOSSES[name](*more, **options_for(name, NUM_ROWS + 4))
    torch.testing.assert_close(actual, JEPA_LOSSES[name](*rows, **options_for(name)), **EXACT)


@pytest.mark.parametrize("name", JEPA_LOSSES)
def test_loss_gives_masked_rows_no_gradient(rows, name):
    predicted, target, mask = rows
    predicted.requires_grad_()
    JEPA_LOSSES[name](predicted, target, mask, **options_for(name)).backward()
    assert torch.equal(predicted.grad[~mask], torch.zeros_like(predicted.grad[~mask]))


@pytest.mark.parametrize("num_chosen", [0, 1])
@pytest.mark.parametrize("name", JEPA_LOSSES)
def test_loss_of_few_rows_is_finite(rows, name, num_chosen):
    predicted, target, _ = rows
    predicted.requires_grad_()
    loss = JEPA_LOSSES[name](predicted, target, torch.arange(NUM_ROWS) < num_chosen, **options_for(name))
    loss.backward()
    assert loss.isfinite() and predicted.grad.isfinite().all()


@pytest.mark.parametrize("name", JEPA_LOSSES)
def test_loss_of_zero_predictions_has_a_finite_gradient(rows, name):
    predicted = torch.zeros_like(rows[0], requires_grad=True)
    JEPA_LOSSES[name](predicted, *rows[1:], **options_for(name)).backward()
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("name", JEPA_LOSSES)
def test_loss_gradient_reaches_predictions(rows, name):
    predicted, target, mask = rows
    predicted.requires_grad_()
    JEPA_LOSSES[name](predicted, target, mask, **options_for(name)).backward()
    assert (predicted.grad[mask] != 0).any(1).all()


@pytest.mark.parametrize("name", ["cosine", "mse", "smooth_l1", "vicreg"])
def test_loss_falls_under_gradient_descent(rows, name):
    predicted, target, mask = rows
    predicted = predicted.clone().requires_grad_()
    first = JEPA_LOSSES[name](predicted, target, mask, **options_for(name))
    (gradient,) = torch.autograd.grad(first, predicted)
    assert JEPA_LOSSES[name](predicted - 0.1 * gradient, target, mask, **options_for(name)) < first


# Masked tokens


def test_masked_lm_loss_equals_cross_entropy():
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, -100, 10, 0, -100, 3])
    # One pass sums and divides, the other averages: one rounding in float32.
    torch.testing.assert_close(masked_lm_loss(logits, labels), F.cross_entropy(logits, labels), rtol=1e-6, atol=1e-6)


def test_masked_lm_loss_is_zero_without_labels():
    assert masked_lm_loss(torch.randn(4, 7), torch.full((4,), -100)) == 0


def test_masked_lm_loss_of_no_tokens_is_zero():
    assert masked_lm_loss(torch.empty(0, 7), torch.empty(0, dtype=torch.long)) == 0


def test_masked_lm_loss_is_taken_in_float32():
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert masked_lm_loss(logits, torch.arange(6)).dtype == torch.float32


def logits_and_labels(num_tokens: int = 7, vocab_size: int = 11, dtype: torch.dtype = torch.float32):
    """Logits that want a gradient, and labels of which every third is absent."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(num_tokens, vocab_size, generator=generator, dtype=torch.float64)).to(dtype)
    labels = torch.randint(0, vocab_size, (num_tokens,), generator=generator)
    return logits.requires_grad_(), labels.masked_fill(torch.arange(num_tokens) % 3 == 1, -100)


def value_and_gradient(loss, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    value = loss(logits, labels)
    return value, torch.autograd.grad(value, logits)[0]


def pieces_of(monkeypatch, values: int):
    """Makes the cross-entropy look at so many logits at a time."""
    monkeypatch.setattr(losses._CrossEntropySum, "MAX_VALUES", {"cpu": values})


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, EXACT), (torch.float32, {"rtol": 1e-6, "atol": 1e-6})])
def test_masked_lm_loss_and_gradient_equal_cross_entropy(dtype, close):
    logits, labels = logits_and_labels(dtype=dtype)
    actual = value_and_gradient(masked_lm_loss, logits, labels)
    # In float32 one pass sums and divides, the other averages, as above.
    torch.testing.assert_close(actual, value_and_gradient(F.cross_entropy, logits, labels), **close)


def test_masked_lm_loss_equals_naive_twin():
    logits, labels = logits_and_labels(dtype=torch.float64)
    terms = [
        math.log(sum(math.exp(score) for score in row)) - row[label]
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
        if label != -100
    ]
    torch.testing.assert_close(masked_lm_loss(logits, labels).item(), mean(terms), **EXACT)


def test_masked_lm_loss_ignores_unlabelled_tokens():
    logits, labels = logits_and_labels()
    chosen = labels != -100
    value, gradient = value_and_gradient(masked_lm_loss, logits, labels)
    changed = logits.detach().masked_fill(~chosen[:, None], 20.0).requires_grad_()
    other, other_gradient = value_and_gradient(masked_lm_loss, changed, labels)
    assert torch.equal(value, other) and torch.equal(gradient, other_gradient)
    assert gradient[~chosen].eq(0).all() and gradient[chosen].ne(0).all()


def test_masked_lm_loss_without_labels_has_a_zero_gradient():
    logits, labels = logits_and_labels()
    value, gradient = value_and_gradient(masked_lm_loss, logits, torch.full_like(labels, -100))
    assert value == 0 and torch.equal(gradient, torch.zeros_like(logits))


def test_masked_lm_loss_of_no_tokens_has_an_empty_gradient():
    logits, labels = logits_and_labels(num_tokens=0)
    value, gradient = value_and_gradient(masked_lm_loss, logits, labels)
    assert value == 0 and gradient.shape == (0, 11)


@pytest.mark.parametrize("values", [1, 11, 30, 10**6])
def test_masked_lm_loss_gradient_equals_finite_differences(monkeypatch, values):
    pieces_of(monkeypatch, values)
    logits, labels = logits_and_labels(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda scores: 3 * masked_lm_loss(scores, labels), logits)


def test_masked_lm_loss_gradient_of_the_gradient_is_refused():
    logits, labels = logits_and_labels()
    (gradient,) = torch.autograd.grad(masked_lm_loss(logits, labels).pow(2), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("values", [1, 11, 22, 35, 76, 77])
def test_masked_lm_loss_in_pieces_equals_the_whole(monkeypatch, values):
    logits, labels = logits_and_labels()
    whole = value_and_gradient(masked_lm_loss, logits, labels)
    pieces_of(monkeypatch, values)
    assert len(losses._CrossEntropySum.chunks(logits)) == {1: 7, 11: 7, 22: 4, 35: 3, 76: 2, 77: 1}[values]
    # Rows are summed after the pieces are joined, so nothing at all changes.
    torch.testing.assert_close(value_and_gradient(masked_lm_loss, logits, labels), whole, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("values", [22, 10**6])
def test_masked_lm_loss_of_half_precision_is_within_rounding_of_float32(monkeypatch, dtype, values):
    pieces_of(monkeypatch, values)
    logits, labels = logits_and_labels(dtype=dtype)
    value, gradient = value_and_gradient(masked_lm_loss, logits, labels)
    expected = value_and_gradient(F.cross_entropy, logits.detach().float().requires_grad_(), labels)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(value, expected[0], rtol=1e-6, atol=1e-6)
    # The gradient alone is rounded, once; below 2 ** -14, float16 loses digits.
    close = {"rtol": torch.finfo(dtype).eps / 2, "atol": 2**-24}
    torch.testing.assert_close(gradient.float(), expected[1], **close)


def test_masked_lm_loss_of_large_logits_is_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    value, gradient = value_and_gradient(masked_lm_loss, logits, torch.tensor([0, 0]))
    assert value == 1e4 and gradient.tolist() == [[0, 0, 0], [-0.5, 0.5, 0]]


def test_masked_lm_loss_leaves_its_arguments_alone():
    logits, labels = logits_and_labels()
    before = logits.detach().clone(), labels.clone()
    value_and_gradient(masked_lm_loss, logits, labels)
    assert torch.equal(logits, before[0]) and torch.equal(labels, before[1])


def test_masked_lm_loss_of_a_view_equals_that_of_a_copy():
    logits, labels = logits_and_labels()
    view = logits.detach().T.contiguous().T.requires_grad_()
    assert not view.is_contiguous()
    actual = value_and_gradient(masked_lm_loss, view, labels)
    torch.testing.assert_close(actual, value_and_gradient(masked_lm_loss, logits, labels))


def test_masked_lm_loss_ignores_unlabelled_rows_that_are_not_finite():
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    logits[1] = torch.inf
    logits.requires_grad_()
    labels = torch.tensor([2, -100, 5])
    loss = masked_lm_loss(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(F.cross_entropy(logits[[0, 2]].detach(), labels[[0, 2]]).item())
    assert not logits.grad[1].any()
