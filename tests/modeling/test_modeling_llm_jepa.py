"""The objective: ordinary training without its second term, the paper's terms with it, the same however it is cut."""

import math

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from predrec.data_collators.chat_format import find_format
from predrec.data_collators.llm_jepa import DataCollatorForLLMJepa
from predrec.data_collators.two_views import TwoViews
from predrec.data_collators.view_examples import RecordEncoder, ViewDataset, encode_records
from predrec.modeling import modeling_llm_jepa
from predrec.modeling.latent_views import tube_loss, view_distance
from predrec.modeling.modeling_llm_jepa import LLMJepaModel, LLMJepaObjective
from predrec.modeling.predictor_tokens import add_predictor_tokens

from .. import causal

RECORDS = [*causal.RECORDS, *(TwoViews(f"lines with {word}", f".*{word}.*") for word in ("cat", "tree", "99", "x"))]


def made(count=2, kind="llama", **objective):
    tokenizer, model = causal.tokenizer("qwen"), causal.model(kind)
    encoder = RecordEncoder(tokenizer, find_format(tokenizer), add_predictor_tokens(model, tokenizer, count))
    dataset = ViewDataset(encode_records(RECORDS, encoder)[0])
    return LLMJepaModel(model, LLMJepaObjective(**objective)), dataset


def batch_of(dataset, numbers=range(8), **options):
    return DataCollatorForLLMJepa(pad_id=2, **options)([dataset[number] for number in numbers])


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", ["ntp", "llm_jepa", "tube"])
def test_without_the_second_term_it_is_ordinary_training_to_the_bit(tmp_path, method):
    model, dataset = made(count=0, method=method, jepa_lambda=0)
    batch = batch_of(dataset)
    output = model(**batch)
    output.loss.backward()
    ours = gradients(model.causal_lm)

    plain = causal.model()
    trainer = Trainer(plain, TrainingArguments(tmp_path, use_cpu=True, report_to=[]))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    loss = trainer.training_step(plain, inputs, num_items_in_batch=model.count_tokens(batch)[0])
    theirs = gradients(plain)
    assert torch.equal(output.loss, loss)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("parts", [1, 2])
def test_half_precision_keeps_no_logits_in_float32_and_has_the_loss_of_float32(parts):
    model, dataset = made(method="ntp")
    batch, size = batch_of(dataset), model.config.vocab_size
    labels = batch["labels"].ne(-100).sum() * parts
    kept = []

    def keep(value):
        kept.append(value)
        return value

    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        output = model(**batch, labels_in_update=labels)
    assert {value.dtype for value in kept if value.shape[-1:] == (size,) and value.ndim > 1} == {torch.bfloat16}
    output.loss.backward()
    ours = gradients(model)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.causal_lm(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        stock = model.base.loss_function(logits, batch["labels"], size, num_items_in_batch=labels)
    torch.testing.assert_close(output.loss, stock)
    stock.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(ours[name], gradient, atol=2e-3, rtol=2e-2)


def test_a_model_with_a_loss_of_its_own_keeps_it_in_half_precision(monkeypatch):
    model, dataset = made(method="ntp")
    monkeypatch.setattr(type(model.base), "loss_function", staticmethod(lambda logits, **_: logits.sum() * 0 + 7))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(**batch_of(dataset)).ntp_loss == 7


def test_the_loss_is_the_weighted_sum_of_what_is_reported():
    model, dataset = made(jepa_lambda=2.0, gamma=0.5)
    batch = batch_of(dataset)
    output = model(**batch)
    states = [
        model.decoder(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        for example in dataset.examples
        for ids in (example.source_ids, example.target_ids)
    ]
    expected = 1 - F.cosine_similarity(torch.stack(states[::2]), torch.stack(states[1::2])).mean()
    torch.testing.assert_close(output.jepa_loss, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(output.loss, 0.5 * output.ntp_loss + 2 * output.jepa_loss)
    logits = model.causal_lm(batch["input_ids"]).logits[:, :-1].flatten(0, 1)
    torch.testing.assert_close(output.ntp_loss, F.cross_entropy(logits, batch["labels"][:, 1:].flatten()))


@pytest.mark.parametrize("method", ["ntp", "llm_jepa"])
@pytest.mark.parametrize("parts", [2, 4])
def test_an_update_is_the_same_in_pieces(method, parts):
    """Pieces of unequal numbers of labelled tokens; padding and packing differ, too."""
    model, dataset = made(method=method)
    whole = batch_of(dataset)
    model(**whole).loss.backward()
    together = gradients(model)
    model.zero_grad()
    labels, targets = model.count_tokens(whole)
    for part in range(parts):
        numbers = range(part * 8 // parts, (part + 1) * 8 // parts)
        model(**batch_of(dataset, numbers), labels_in_update=labels, targets_in_update=targets).loss.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, together[name], atol=1e-6, rtol=1e-4)


def test_reported_terms_do_not_depend_on_the_update():
    model, dataset = made()
    batch = batch_of(dataset)
    alone = model(**batch)
    share = model(**batch, labels_in_update=torch.tensor(1000.0), targets_in_update=torch.tensor(80.0))
    torch.testing.assert_close(alone.ntp_loss, share.ntp_loss)
    torch.testing.assert_close(alone.jepa_loss, share.jepa_loss)
    assert share.loss < 0.5 * alone.loss


def test_a_skipped_term_costs_no_pass():
    model, dataset = made()
    batch = batch_of(dataset)
    calls = []
    model.decoder.register_forward_hook(lambda *_: calls.append(1))
    output = model(**batch, skip_jepa=True)
    assert len(calls) == 1 and output.jepa_loss is None
    assert torch.equal(output.loss, output.ntp_loss)
    model(**batch)
    assert len(calls) == 3


def test_views_do_not_go_through_the_head():
    model, dataset = made()
    seen = []
    model.base.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    batch = batch_of(dataset)
    model(**batch)
    assert seen == [(*batch["input_ids"].shape, 32)]


@pytest.mark.parametrize("layer", [-5, 4])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(ValueError, match=f"`jepa_layer` is {layer}; of a model with 2 layers it must be in"):
        LLMJepaModel(causal.model(), LLMJepaObjective(layer=layer))


@pytest.mark.parametrize("target_grad", ["shared", "stop", "ema"])
def test_gradient_of_the_target(target_grad):
    """With the predictor's own state held fixed, only a shared target has a gradient."""
    model, dataset = made(target_grad=target_grad)
    _, target = model.encode_views(batch_of(dataset))
    assert target.requires_grad == (target_grad == "shared")


@pytest.mark.parametrize(("skipped", "share"), [(None, 0.25), (torch.tensor(0.0), 0.25), (torch.tensor(1.0), 0.0)])
def test_the_average_follows_the_model_unless_an_update_is_skipped(skipped, share):
    model, _ = made(target_grad="ema")
    before = [p.clone() for p in model.target_decoder.parameters()]
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(1)
    model.update_target_encoder(0.75, skipped)
    for old, new in zip(before, model.target_decoder.parameters(), strict=True):
        torch.testing.assert_close(new, old + share)
    assert not model.train().target_decoder.training


def test_evaluation_measures_the_views_of_every_method():
    for method in ("ntp", "llm_jepa", "tube"):
        model, dataset = made(method=method)
        output = model.eval()(**batch_of(dataset))
        assert output.source_states.shape == output.target_states.shape == (8, 32)
        assert output.jepa_loss is not None
    assert model.train()(**batch_of(dataset)).source_states is None


def test_lora_trains_adapters_and_the_predictor_rows_only():
    model, dataset = made(count=2)
    ids = model.config.predictor_token_ids
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], trainable_token_indices={"embed_tokens": ids}
    )
    model = LLMJepaModel(get_peft_model(model.causal_lm, config), model.objective)
    batch = batch_of(dataset)
    model(**batch).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "trainable_tokens" in name for name in trained)
    rows = [p for name, p in model.named_parameters() if "trainable_tokens_delta" in name]
    assert [tuple(row.shape) for row in rows] == [(2, 32)]
    assert all(row.grad.abs().sum(-1).min() > 0 for row in rows)


# Distances


SOURCE = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
TARGET = torch.tensor([[4.0, 3.0], [0.0, 2.0]])


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("cosine", 1 - (24 / 25 + 0) / 2),
        ("l2", (math.sqrt(2) + math.sqrt(5)) / 2),
        ("mse", (1 + 1 + 1 + 4) / 4),
        # LayerNorm of two numbers is (-1, 1) or (1, -1): opposite here, so |difference| is 2, above the knee.
        ("smooth_l1", 2 - 0.5),
    ],
)
def test_distances_by_hand(distance, expected):
    assert view_distance(SOURCE, TARGET, distance).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_infonce_is_cross_entropy_of_the_cosines(temperature):
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 6, 5, generator=generator)
    scores = F.cosine_similarity(source[:, None], target[None], dim=-1) / temperature
    numbers = torch.arange(6)
    one = F.cross_entropy(scores, numbers)
    torch.testing.assert_close(view_distance(source, target, "infonce", temperature), one)
    both = (one + F.cross_entropy(scores.T, numbers)) / 2
    torch.testing.assert_close(view_distance(source, target, "infonce", temperature, symmetric=True), both)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_model_contrasts_as_its_objective_says(temperature, symmetric):
    model, dataset = made(distance="infonce", temperature=temperature, symmetric=symmetric)
    batch = batch_of(dataset)
    batch["pair_numbers"][3] = batch["pair_numbers"][5]
    source, target = model.encode_views(batch)
    scores = F.cosine_similarity(source[:, None], target[None], dim=-1) / temperature
    scores[3, 5] = scores[5, 3] = -torch.inf
    losses = [F.cross_entropy(part, torch.arange(8)) for part in (scores, scores.T)]
    expected = sum(losses) / 2 if symmetric else losses[0]
    torch.testing.assert_close(model(**batch).jepa_loss, expected)


def test_the_model_contrasts_over_processes_in_training_only(monkeypatch):
    """In evaluation, processes may have different numbers of batches: they must not wait for one another."""
    seen = []

    def watched(*arguments, over_processes, **options):
        seen.append(over_processes)
        return view_distance(*arguments, **options)

    monkeypatch.setattr(modeling_llm_jepa, "view_distance", watched)
    model, dataset = made(distance="infonce")
    for training in (True, False):
        model.train(training)(**batch_of(dataset))
    assert seen == [True, False]


def test_equal_targets_are_no_negatives():
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(2, 3, 5, generator=generator)
    target[1] = target[0]
    scores = F.cosine_similarity(source[:, None], target[None], dim=-1) / 0.07
    scores[0, 1] = scores[1, 0] = -torch.inf
    expected = F.cross_entropy(scores, torch.arange(3))
    found = view_distance(source, target, "infonce", pair_numbers=torch.tensor([4, 4, 1]))
    torch.testing.assert_close(found, expected)


def test_distances_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exact = view_distance(SOURCE.bfloat16(), TARGET.bfloat16(), "infonce", 1.0)
    assert exact.dtype == torch.float32
    torch.testing.assert_close(exact, view_distance(SOURCE, TARGET, "infonce", 1.0))


# Tube


def test_a_straight_line_does_not_turn():
    line = torch.arange(9.0)[None, :, None] * torch.tensor([1.0, 2.0, -1.0])
    mask = torch.ones(1, 9, dtype=torch.bool)
    assert tube_loss(line, mask).item() == pytest.approx(0, abs=1e-6)
    there_and_back = torch.tensor([[[0.0], [1.0], [0.0]]])
    assert tube_loss(there_and_back, mask[:, :3]).item() == pytest.approx(2)


def test_padding_and_short_sequences_do_not_count():
    states = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 3 + [False] * 5, [True] * 2 + [False] * 6])
    expected = 1 - F.cosine_similarity(states[0, 2] - states[0, 1], states[0, 1] - states[0, 0], dim=0)
    torch.testing.assert_close(tube_loss(states, mask), expected)
    assert tube_loss(states, torch.zeros_like(mask)) == 0


def test_tube_positions_are_random():
    generator = torch.Generator().manual_seed(0)
    states, mask = torch.randn(1, 30, 4, generator=generator), torch.ones(1, 30, dtype=torch.bool)
    assert len({tube_loss(states, mask, generator).item() for _ in range(20)}) > 15


def test_the_tube_is_of_the_last_states_of_real_tokens(monkeypatch):
    model, dataset = made(method="tube", jepa_lambda=0.02)
    batch, seen = batch_of(dataset, views=False), []
    monkeypatch.setattr(modeling_llm_jepa, "tube_loss", lambda *given: seen.append(given) or tube_loss(*given))
    model(**batch)
    ((states, mask),) = seen
    assert not mask.all() and torch.equal(mask, batch["attention_mask"].bool())
    expected = model.decoder(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    torch.testing.assert_close(states[mask], expected[mask])


def test_the_tube_makes_no_other_pass():
    model, dataset = made(method="tube", jepa_lambda=0.02)
    calls = []
    model.decoder.register_forward_hook(lambda *_: calls.append(1))
    output = model(**batch_of(dataset, views=False))
    assert len(calls) == 1
    torch.testing.assert_close(output.loss, output.ntp_loss + 0.02 * output.jepa_loss)


def test_training_brings_matched_views_together():
    """Twenty updates: the latent loss falls, and matched views stay nearer than mismatched ones."""
    torch.manual_seed(0)
    model, dataset = made(jepa_lambda=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = batch_of(dataset)
    losses = []
    for _ in range(20):
        output = model(**batch)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.jepa_loss.item())
    assert losses[-1] < 0.5 * losses[0]
    source, target = (F.normalize(states, dim=-1) for states in (output.source_states, output.target_states))
    cosines = source @ target.T
    mismatched = cosines[~torch.eye(8, dtype=torch.bool)].mean()
    assert mismatched < cosines.diagonal().mean()
