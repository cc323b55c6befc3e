"""The order of rows of similar length depends on seed and epoch, and on nothing else."""

import torch

from predrec.trainers.length_groups import SeededLengthGroups

from .. import llm_training

LENGTHS = torch.randint(5, 60, (400,), generator=torch.Generator().manual_seed(0)).tolist()


def order(seed: int = 1, epoch: int = 0) -> list[int]:
    return list(SeededLengthGroups(4, lengths=LENGTHS, seed=seed, epoch=lambda: epoch))


def test_every_row_comes_once():
    assert sorted(order()) == list(range(400))


def test_rows_of_a_batch_are_of_similar_length():
    batches = torch.tensor([LENGTHS[row] for row in order()]).view(-1, 4)
    # Four rows at random would span 33 tokens; four neighbours among 100 sorted ones span two.
    assert (batches.amax(1) - batches.amin(1)).float().mean() < 4


def test_the_order_is_the_same_whatever_was_drawn_before():
    first = order(epoch=2)
    torch.manual_seed(5)
    assert order(epoch=2) == first


def test_every_epoch_and_every_seed_has_an_order_of_its_own():
    orders = [order(), order(epoch=1), order(epoch=2), order(seed=7)]
    assert len({tuple(rows) for rows in orders}) == 4


def test_a_run_reads_every_epoch_in_another_order(tmp_path):
    trainer = llm_training.trainer(tmp_path, method="ntp", train_sampling_strategy="group_by_length", max_steps=12)
    seen = []

    def note(module, arguments, inputs):
        if module.training:
            seen.extend(inputs["example_ids"].tolist())

    trainer.model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train()
    epochs = [seen[begin : begin + 16] for begin in (0, 16, 32)]
    assert all(sorted(epoch) == list(range(16)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
