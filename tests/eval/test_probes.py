"""The heads of all seeds in one loop: the same as a stock Trainer seed by seed, and able to find what is there."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn
from transformers import Trainer, TrainingArguments

from predrec.eval import probes
from predrec.eval.embeddings import TokenStates
from predrec.eval.probes import (
    DropoutMasks,
    ProbeSettings,
    StackedLinear,
    build_probe,
    epoch_order,
    predict_probe,
    probe_optimizer,
    train_probe,
)

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
SIZE = 8
ROWS = 44  # The last batch of 16 is smaller, and its masks end inside a random word.
SEEDS = [5, 0, 3]
FAST = {"batch_size": 64, "learning_rate": 1e-2}


def cloud(rows: int, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def centred(rows: int, seed: int = 0) -> torch.Tensor:
    """Vectors whose features add up to 0, which LayerNorm only scales."""
    half = cloud(rows, SIZE // 2, seed)
    return torch.cat([half, -half], dim=1)


def classes(rows: int, num_labels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(num_labels, size=rows)


def generator_of(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


def accuracies(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of right rows of each seed."""
    return (scores.argmax(-1) == labels).mean(-1)


class PlainHead(nn.Module):
    """The head of one seed, as it is usually written."""

    def __init__(self, num_texts: int, num_outputs: int, settings: ProbeSettings, masks: list[torch.Tensor]):
        super().__init__()
        width = SIZE * (4 if num_texts == 2 else 1)
        self.norm = nn.LayerNorm(SIZE)
        self.hidden = None
        if settings.head == "mlp":
            self.hidden = nn.Linear(width, settings.mlp_size)
            width = settings.mlp_size
        self.classifier = nn.Linear(width, num_outputs)
        self.rate, self.masks = settings.dropout, iter(masks)

    def forward(self, first, second=None):
        features = self.norm(first)
        if second is not None:
            u, v = features, self.norm(second)
            features = torch.cat([u, v, (u - v).abs(), u * v], dim=-1)
        if self.hidden is not None:
            features = F.gelu(self.hidden(features))
        if self.rate and self.training:
            features = features * next(self.masks) / (1 - self.rate)
        return self.classifier(features)


class PlainCosine(nn.Module):
    """Scale and bias on the cosine."""

    def __init__(self):
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, first, second):
        return (self.scale * F.cosine_similarity(first, second) + self.bias)[:, None]


class PlainPooler(nn.Module):
    """Softmax over real tokens, of a query's products or of weights by position."""

    def __init__(self, kind: str, longest: int):
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.query, self.key = nn.Parameter(torch.zeros(SIZE)), nn.Parameter(torch.zeros(SIZE, SIZE))
        else:
            self.position_weights = nn.Parameter(torch.zeros(longest))

    def forward(self, states, mask):
        if self.kind == "attention":
            scores = F.linear(states, self.key) @ self.query / SIZE**0.5
        else:
            scores = self.position_weights.expand(len(states), -1)
        return (scores.masked_fill(~mask, -torch.inf).softmax(1)[..., None] * states).sum(1)


class PlainProbe(nn.Module):
    """What one seed trains, with its loss."""

    def __init__(self, heads: nn.Module, pooler: PlainPooler | None):
        super().__init__()
        self.heads, self.pooler = heads, pooler

    def forward(self, first, second=None, mask=None, labels=None):
        if self.pooler is not None:
            first = self.pooler(first, mask)
        logits = self.heads(first) if second is None else self.heads(first, second)
        if labels.is_floating_point():
            return {"loss": F.mse_loss(logits[:, 0], labels), "logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Replay(torch.utils.data.Sampler):
    """Gives the rows of each epoch in an order that was drawn before."""

    def __init__(self, orders: list[torch.Tensor]):
        self.length, self.orders = len(orders[0]), iter(orders)

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(next(self.orders).tolist())


class ReplayTrainer(Trainer):
    sampler: Replay

    def _get_train_sampler(self, *arguments):
        return self.sampler


def draws_of(seed: int, rows: int, width: int, settings: ProbeSettings):
    """Returns a seed's orders, one per epoch, and its masks, one per batch."""
    generator = generator_of(seed)
    orders, masks = [], []
    for _ in range(settings.num_epochs):
        orders.append(epoch_order(rows, generator))
        for batch in orders[-1].split(settings.batch_size):
            if settings.dropout:
                count = len(batch) * width
                words = generator.bit_generator.random_raw(-(-count // 4)).view(np.int16)[:count]
                kept = (words.astype(np.int64) + 32768) / 65536 >= settings.dropout
                masks.append(torch.from_numpy(kept.reshape(len(batch), width)).float())
    return orders, masks


def trained_by_trainer(folder, inputs, labels, num_labels, settings, seed, pooling=None):
    """Trains what one seed trains with a stock Trainer; returns its weights and predictions."""
    start = build_probe(inputs, num_labels, settings, [seed], trained_pooling=pooling)
    width = start.heads.dropout_width
    orders, masks = draws_of(seed, len(labels), width, settings)
    heads = PlainHead(len(inputs), num_labels or 1, settings, masks) if width else PlainCosine()
    columns = dict(zip(("first", "second"), inputs, strict=False))
    pooler = None
    if pooling is not None:
        pooler = PlainPooler(pooling, inputs[0].longest)
        columns["first"], columns["mask"] = inputs[0].rows(torch.arange(len(labels)))
    columns["labels"] = torch.from_numpy(labels) if num_labels else torch.from_numpy(labels).float()
    examples = [{name: column[row] for name, column in columns.items()} for row in range(len(labels))]
    model = PlainProbe(heads, pooler)
    model.load_state_dict({name: value[0] for name, value in start.state_dict().items()})
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=settings.num_epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = ReplayTrainer(model, arguments, train_dataset=examples)
    trainer.sampler = Replay(orders)
    trainer.train()
    return model.state_dict(), trainer.predict(examples).predictions


def assert_equals_trainer(folder, inputs, labels, num_labels, settings, pooling=None):
    """Compares two of the seeds."""
    probe, history = train_probe(inputs, labels, num_labels, settings, SEEDS, inputs, trained_pooling=pooling)
    for index in (0, 2):
        expected = trained_by_trainer(folder, inputs, labels, num_labels, settings, SEEDS[index], pooling)
        for name, weight in expected[0].items():
            torch.testing.assert_close(probe.get_parameter(name)[index], weight, **CLOSE)
        np.testing.assert_allclose(history[-1][index], expected[1], **CLOSE)


def states_of(texts: list[torch.Tensor]) -> TokenStates:
    lengths = torch.tensor([0, *map(len, texts)])
    return TokenStates(torch.cat(texts), lengths.cumsum(0))


def some_states(rows: int = ROWS, seed: int = 0) -> TokenStates:
    lengths = np.random.default_rng(seed).integers(1, 6, rows)
    return states_of(list(cloud(int(lengths.sum()), seed=seed).split(lengths.tolist())))


@pytest.fixture
def single():
    return (cloud(ROWS),)


@pytest.fixture
def pair():
    return cloud(ROWS), cloud(ROWS, seed=1)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_train_probe_of_single_texts_equals_a_stock_trainer(tmp_path, single, dropout):
    settings = ProbeSettings(num_epochs=4, batch_size=16, dropout=dropout)
    assert_equals_trainer(tmp_path, single, classes(ROWS, 3), 3, settings)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_train_probe_of_pairs_equals_a_stock_trainer(tmp_path, pair, dropout):
    settings = ProbeSettings(num_epochs=4, batch_size=16, dropout=dropout)
    assert_equals_trainer(tmp_path, pair, classes(ROWS, 3), 3, settings)


@pytest.mark.parametrize("num_texts", [1, 2])
def test_train_probe_with_a_hidden_layer_equals_a_stock_trainer(tmp_path, pair, num_texts):
    settings = ProbeSettings(num_epochs=4, batch_size=16, head="mlp", mlp_size=6)
    assert_equals_trainer(tmp_path, pair[:num_texts], classes(ROWS), 2, settings)


def test_train_probe_of_scores_with_a_hidden_layer_equals_a_stock_trainer(tmp_path, pair):
    settings = ProbeSettings(num_epochs=4, batch_size=16, head="mlp", mlp_size=6)
    assert_equals_trainer(tmp_path, pair, np.random.default_rng(0).uniform(0, 5, ROWS), 0, settings)


def test_train_probe_on_the_cosine_equals_a_stock_trainer(tmp_path, pair):
    # The Trainer would take the scale for a weight and let it decay.
    settings = ProbeSettings(num_epochs=4, batch_size=16, weight_decay=0.0)
    assert_equals_trainer(tmp_path, pair, np.random.default_rng(0).uniform(0, 5, ROWS), 0, settings)


@pytest.mark.parametrize("pooling", ["attention", "weighted"])
def test_train_probe_with_trained_pooling_equals_a_stock_trainer(tmp_path, pooling):
    settings = ProbeSettings(num_epochs=4, batch_size=16)
    assert_equals_trainer(tmp_path, (some_states(),), classes(ROWS, 3), 3, settings, pooling)


def test_train_probe_with_a_large_weight_decay_equals_a_stock_trainer(tmp_path, pair):
    settings = ProbeSettings(num_epochs=4, batch_size=16, weight_decay=5.0, head="mlp", mlp_size=6)
    assert_equals_trainer(tmp_path, pair, classes(ROWS), 2, settings)


@pytest.mark.parametrize(
    ("settings", "pooling", "expected"),
    [
        (ProbeSettings(1), None, {"heads.classifier.weight"}),
        (ProbeSettings(1, head="mlp"), None, {"heads.classifier.weight", "heads.hidden.weight"}),
        (ProbeSettings(1), "attention", {"heads.classifier.weight", "pooler.query", "pooler.key"}),
        (ProbeSettings(1), "weighted", {"heads.classifier.weight", "pooler.position_weights"}),
    ],
)
def test_probe_optimizer_decays_weights_alone(settings, pooling, expected):
    inputs = (cloud(4),) if pooling is None else (TokenStates(cloud(4), torch.arange(5)),)
    probe = build_probe(inputs, 2, settings, SEEDS, trained_pooling=pooling)
    decayed = probe_optimizer(probe, settings).param_groups[0]["params"]
    assert {name for name, value in probe.named_parameters() if any(value is one for one in decayed)} == expected


def test_probe_optimizer_decays_nothing_of_the_cosine(pair):
    groups = probe_optimizer(build_probe(pair, 0, ProbeSettings(1), SEEDS), ProbeSettings(1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.0]


def test_stacked_linear_starts_within_the_bounds_of_a_linear_layer():
    layer = StackedLinear(25, 400, [torch.Generator().manual_seed(0)])
    assert layer.weight.abs().max().item() == pytest.approx(0.2, abs=1e-3)
    assert layer.bias.abs().max().item() == pytest.approx(0.2, abs=5e-3)


def test_heads_of_different_seeds_start_differently(single):
    weights = build_probe(single, 2, ProbeSettings(1), [0, 1]).heads.classifier.weight
    assert not torch.equal(weights[0], weights[1])


CASES = {
    "single": (lambda: (cloud(ROWS),), ProbeSettings(3, 16), None),
    "single-mlp": (lambda: (cloud(ROWS),), ProbeSettings(3, 16, head="mlp", mlp_size=6), None),
    "pair": (lambda: (cloud(ROWS), cloud(ROWS, seed=1)), ProbeSettings(3, 16), None),
    "pair-mlp": (
        lambda: (cloud(ROWS), cloud(ROWS, seed=1)),
        ProbeSettings(3, 16, head="mlp", mlp_size=6),
        None,
    ),
    "attention": (lambda: (some_states(),), ProbeSettings(3, 16), "attention"),
    "attention-pair": (lambda: (some_states(), some_states(seed=1)), ProbeSettings(3, 16), "attention"),
    "weighted": (lambda: (some_states(),), ProbeSettings(3, 16), "weighted"),
}


@pytest.fixture(params=CASES)
def case(request):
    """Inputs, settings and trained pooling of every kind of probe."""
    inputs, settings, pooling = CASES[request.param]
    return inputs(), settings, pooling


@pytest.mark.parametrize("others", [[1], [1, 9], [4, 1, 0, 7]])
def test_train_probe_of_a_seed_does_not_depend_on_the_other_seeds(case, others):
    inputs, settings, pooling = case
    labels = classes(ROWS)
    together, history = train_probe(inputs, labels, 2, settings, [2, *others], inputs, trained_pooling=pooling)
    alone, alone_history = train_probe(inputs, labels, 2, settings, [2], inputs, trained_pooling=pooling)
    for name, weight in alone.named_parameters():
        torch.testing.assert_close(together.get_parameter(name)[0], weight[0], **CLOSE)
    np.testing.assert_allclose(history[-1][0], alone_history[-1][0], **CLOSE)


def test_train_probe_of_different_seeds_differs(case):
    inputs, settings, pooling = case
    _, history = train_probe(inputs, classes(ROWS), 2, settings, [0, 1], inputs, trained_pooling=pooling)
    assert not np.allclose(history[-1][0], history[-1][1])


def test_train_probe_predicts_after_every_epoch(case):
    inputs, settings, pooling = case
    probe, history = train_probe(inputs, classes(ROWS), 2, settings, SEEDS, inputs, trained_pooling=pooling)
    assert [epoch.shape for epoch in history] == [(len(SEEDS), ROWS, 2)] * settings.num_epochs
    assert not np.allclose(history[0], history[1])
    np.testing.assert_array_equal(history[-1], predict_probe(probe, inputs))


def test_train_probe_without_evaluation_has_no_history(single):
    assert train_probe(single, classes(ROWS), 2, ProbeSettings(2), SEEDS)[1] == []


def test_train_probe_leaves_its_inputs_alone(case):
    inputs, settings, pooling = case
    tensors = [one.states if isinstance(one, TokenStates) else one for one in inputs]
    before = [tensor.clone() for tensor in tensors]
    train_probe(inputs, classes(ROWS), 2, settings, SEEDS, trained_pooling=pooling)
    assert all(map(torch.equal, tensors, before))


def test_predict_probe_in_several_batches_is_the_same(single, monkeypatch):
    probe = build_probe(single, 2, ProbeSettings(1), SEEDS)
    expected = predict_probe(probe, single)
    monkeypatch.setattr(probes, "EVAL_BATCH", 7)
    np.testing.assert_allclose(predict_probe(probe, single), expected, **CLOSE)


def test_epoch_orders_of_a_generator_are_different_permutations():
    generator = generator_of(0)
    first, second = epoch_order(20, generator), epoch_order(20, generator)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(20))
    assert not torch.equal(first, second)


HEADS = pytest.mark.parametrize("head", ["linear", "mlp"])


@HEADS
def test_train_probe_finds_a_linear_signal_in_single_texts(head):
    vectors = centred(900)
    labels = (vectors @ torch.tensor([3.0, 1, 0, -1, 0, 0, 0, 0]) > 0).long().numpy()
    settings = ProbeSettings(num_epochs=40, head=head, **FAST)
    _, history = train_probe((vectors[:600],), labels[:600], 2, settings, SEEDS, (vectors[600:],))
    assert accuracies(history[-1], labels[600:]).min() > 0.95


@HEADS
def test_train_probe_finds_whether_the_texts_of_a_pair_are_alike(head):
    labels = classes(900)
    first = cloud(900)
    second = torch.where(torch.from_numpy(labels)[:, None] == 1, first + 0.2 * cloud(900, seed=1), cloud(900, seed=2))
    settings = ProbeSettings(num_epochs=25, head=head, **FAST)
    train, held_out = ((first[part], second[part]) for part in (slice(600), slice(600, None)))
    _, history = train_probe(train, labels[:600], 2, settings, SEEDS, held_out)
    assert accuracies(history[-1], labels[600:]).min() > 0.95


def exclusive_or_accuracies(head: str) -> np.ndarray:
    vectors = centred(900)
    labels = ((vectors[:, 0] > 0) ^ (vectors[:, 1] > 0)).long().numpy()
    settings = ProbeSettings(num_epochs=25, head=head, **FAST)
    _, history = train_probe((vectors[:600],), labels[:600], 2, settings, SEEDS, (vectors[600:],))
    return accuracies(history[-1], labels[600:])


def test_train_probe_finds_an_exclusive_or_with_a_hidden_layer():
    assert exclusive_or_accuracies("mlp").min() > 0.9


def test_train_probe_does_not_find_an_exclusive_or_without():
    assert exclusive_or_accuracies("linear").max() < 0.65


@HEADS
def test_train_probe_of_noise_stays_at_chance(head):
    rows, labels = 400, classes(800)
    vectors = cloud(800, seed=1)
    settings = ProbeSettings(num_epochs=10, head=head, **FAST)
    _, history = train_probe((vectors[:rows],), labels[:rows], 2, settings, SEEDS, (vectors[rows:],))
    assert np.abs(accuracies(history[-1], labels[rows:]) - 0.5).max() < 4 * (0.25 / rows) ** 0.5


def test_dropout_masks_are_zeros_and_ones():
    masks = DropoutMasks(0.2, 7, 5, [generator_of(0), generator_of(1)])
    for rows in (7, 3, 7):
        mask = masks.draw(rows)
        assert mask.shape == (2, rows, 5)
        assert mask.unique().tolist() == [0, 1]


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_dropout_masks_drop_at_their_rate(rate):
    mask = DropoutMasks(rate, 200, 101, [generator_of(seed) for seed in range(3)]).draw(200)
    bound = 4.5 * (rate * (1 - rate) / mask[0].numel()) ** 0.5
    assert (1 - mask.mean((1, 2)) - rate).abs().max().item() < bound


def test_dropout_masks_drop_every_feature_alike():
    mask = DropoutMasks(0.2, 4000, 6, [generator_of(0)]).draw(4000)[0]
    assert (mask.mean(0) - 0.8).abs().max().item() < 4.5 * (0.16 / 4000) ** 0.5


def test_dropout_masks_of_two_seeds_differ():
    first, second = DropoutMasks(0.5, 20, 20, [generator_of(0), generator_of(1)]).draw(20)
    assert not torch.equal(first, second)


def test_dropout_masks_of_two_batches_differ():
    masks = DropoutMasks(0.5, 20, 20, [generator_of(0)])
    first = masks.draw(20).clone()
    assert not torch.equal(masks.draw(20), first)


@pytest.mark.parametrize("num_texts", [1, 2])
@HEADS
def test_dropout_keeps_the_expected_scores(pair, num_texts, head):
    settings = ProbeSettings(1, dropout=0.4, head=head, mlp_size=6)
    inputs = pair[:num_texts]
    probe = build_probe(inputs, 2, settings, [0, 1])
    nn.init.normal_(probe.heads.norm.bias, generator=torch.Generator().manual_seed(0))
    rows = torch.zeros(2, 20_000, dtype=torch.long)
    mask = DropoutMasks(0.4, rows.shape[1], probe.heads.dropout_width, [generator_of(0), generator_of(1)])
    with torch.no_grad():
        dropped = probe(probe.prepare(inputs), rows, mask.draw(rows.shape[1]))
        whole = probe(probe.prepare(inputs), rows[:, :1])
    bound = 4.5 * dropped.std(1) / rows.shape[1] ** 0.5
    assert ((dropped.mean(1) - whole[:, 0]).abs() < bound).all()


def marked_texts(rows: int = 600) -> tuple[TokenStates, np.ndarray]:
    """Long texts, of which only one token, which the first feature marks, carries the class."""
    generator = np.random.default_rng(0)
    labels = classes(rows)
    texts = []
    for row in range(rows):
        states = cloud(int(generator.integers(20, 40)), seed=row)
        states[:, 0] = 0
        marked = generator.integers(len(states))
        states[marked, 0], states[marked, 1] = 4.0, 2.0 * (2 * labels[row] - 1)
        texts.append(states)
    return states_of(texts), labels


def parts_of(states: TokenStates, first: int) -> tuple[TokenStates, TokenStates]:
    cut = int(states.offsets[first])
    return (
        TokenStates(states.states[:cut], states.offsets[: first + 1]),
        TokenStates(states.states[cut:], states.offsets[first:] - cut),
    )


def means_of(states: TokenStates) -> torch.Tensor:
    return torch.stack([text.mean(0) for text in states.states.split(states.offsets.diff().tolist())])


def test_trained_attention_finds_one_marked_token():
    states, labels = marked_texts()
    train, held_out = parts_of(states, 400)
    settings = ProbeSettings(num_epochs=12, batch_size=32, learning_rate=3e-2)
    _, history = train_probe((train,), labels[:400], 2, settings, [0, 1], (held_out,), trained_pooling="attention")
    assert accuracies(history[-1], labels[400:]).min() > 0.95


def test_mean_pooling_drowns_one_marked_token():
    states, labels = marked_texts()
    train, held_out = parts_of(states, 400)
    settings = ProbeSettings(num_epochs=12, batch_size=32, learning_rate=3e-2)
    _, history = train_probe((means_of(train),), labels[:400], 2, settings, [0, 1], (means_of(held_out),))
    assert accuracies(history[-1], labels[400:]).max() < 0.75


def texts_with_a_position(rows: int = 600) -> tuple[TokenStates, np.ndarray]:
    """Texts whose fourth token carries the class."""
    lengths = np.random.default_rng(0).integers(10, 20, rows)
    labels = classes(rows)
    texts = [cloud(int(length), seed=row) for row, length in enumerate(lengths)]
    for text, label in zip(texts, labels, strict=True):
        text[3, 1] = 2.0 * (2 * label - 1)
    return states_of(texts), labels


def test_trained_weights_find_one_position():
    states, labels = texts_with_a_position()
    train, held_out = parts_of(states, 400)
    settings = ProbeSettings(num_epochs=15, batch_size=32, learning_rate=1e-1)
    probe, history = train_probe((train,), labels[:400], 2, settings, [0, 1], (held_out,), trained_pooling="weighted")
    assert probe.pooler.position_weights.argmax(1).tolist() == [3, 3]
    assert accuracies(history[-1], labels[400:]).min() > 0.9


def test_trained_weights_start_as_the_mean():
    states = some_states()
    pooled = build_probe((states,), 2, ProbeSettings(1), SEEDS, trained_pooling="weighted")
    plain = build_probe((means_of(states),), 2, ProbeSettings(1), SEEDS)
    np.testing.assert_allclose(predict_probe(pooled, (states,)), predict_probe(plain, (means_of(states),)), **CLOSE)


def test_trained_weights_are_those_of_the_start_beyond_the_longest_text_of_training():
    training, longer = states_of([cloud(4), cloud(6, seed=1)]), cloud(9, seed=2)
    probe = build_probe((training,), 2, ProbeSettings(1), SEEDS, trained_pooling="weighted")
    weights = nn.init.normal_(probe.pooler.position_weights, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(len(SEEDS), 1, 9, dtype=torch.bool)
    found = probe.pooler(longer.expand(len(SEEDS), 1, -1, -1), mask)[:, 0]
    expected = torch.stack([torch.cat([known, torch.zeros(3)]).softmax(0) @ longer for known in weights.detach()])
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("pooling", ["attention", "weighted"])
def test_trained_pooling_ignores_the_states_of_other_texts(pooling):
    states = some_states()
    probe = build_probe((states,), 2, ProbeSettings(1), SEEDS, trained_pooling=pooling)
    for weights in probe.pooler.parameters():
        nn.init.normal_(weights, generator=torch.Generator().manual_seed(0))
    changed = TokenStates(states.states.clone(), states.offsets)
    changed.states[int(states.offsets[10]) :] = 1e3
    before, after = (predict_probe(probe, (texts,))[:, :10] for texts in (states, changed))
    np.testing.assert_allclose(after, before, **CLOSE)


@pytest.mark.parametrize("pooling", ["attention", "weighted"])
def test_trained_pooling_does_not_depend_on_how_long_other_texts_are(pooling):
    states = some_states()
    first, _ = parts_of(states, 10)
    longer = states_of([*first.states.split(first.offsets.diff().tolist()), cloud(30, seed=9)])
    probe = build_probe((longer,), 2, ProbeSettings(1), SEEDS, trained_pooling=pooling)
    np.testing.assert_allclose(predict_probe(probe, (longer,))[:, :10], predict_probe(probe, (first,)), **CLOSE)


@pytest.mark.parametrize("pooling", ["attention", "weighted"])
def test_trained_pooling_learns_the_same_in_any_storage_order(pooling):
    states, labels = some_states(), classes(ROWS)
    flipped = states_of(list(states.states.split(states.offsets.diff().tolist()))[::-1])
    settings = ProbeSettings(num_epochs=3, batch_size=ROWS, dropout=0.0)
    one, _ = train_probe((states,), labels, 2, settings, [0], trained_pooling=pooling)
    other, _ = train_probe((flipped,), labels[::-1].copy(), 2, settings, [0], trained_pooling=pooling)
    for name, weight in one.named_parameters():
        torch.testing.assert_close(other.get_parameter(name), weight, rtol=1e-4, atol=1e-4)


@HEADS
def test_scores_start_in_their_range(pair, head):
    settings = ProbeSettings(1, head=head)
    scores = predict_probe(build_probe(pair, 0, settings, SEEDS, label_range=(1.0, 5.0)), pair)
    assert scores.shape == (len(SEEDS), ROWS, 1)
    assert 1 <= scores.min() < scores.max() <= 5


def test_cosine_heads_start_at_the_ends_of_the_range():
    first = cloud(2)
    second = torch.stack([first[0], -first[1]])
    scores = predict_probe(
        build_probe((first, second), 0, ProbeSettings(1), [0], label_range=(1.0, 5.0)), (first, second)
    )
    np.testing.assert_allclose(scores[0, :, 0], [5, 1], **CLOSE)


@HEADS
def test_train_probe_learns_how_alike_the_texts_of_a_pair_are(head):
    alike = np.random.default_rng(0).uniform(0, 1, 900)
    share = torch.from_numpy(alike).float()[:, None]
    first = cloud(900, 32)
    second = share * first + (1 - share**2).sqrt() * cloud(900, 32, seed=1)
    train, held_out = ((first[part], second[part]) for part in (slice(600), slice(600, None)))
    settings = ProbeSettings(num_epochs=20, head=head, **FAST)
    _, history = train_probe(train, 5 * alike[:600], 0, settings, [0, 1], held_out)
    assert min(spearmanr(scores[:, 0], alike[600:]).statistic for scores in history[-1]) > 0.85
