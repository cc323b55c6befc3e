"""Times one setting in a process of its own and prints what it found: `python -m predrec.benchmark.worker JSON`."""

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import (
    BertForMaskedLM,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from ..data_collators import DataCollatorForPreTraining
from ..modeling import PredRecForPreTraining
from ..modeling.flops import training_flops
from ..trainers import PredRecTrainer, PredRecTrainingArguments
from ..trainers.cpu import keep_freed_memory, use_all_cores
from ..trainers.ema import EMACallback
from .machine import peak_memory, synchronize
from .plain import plain_average, plain_loss
from .settings import BASELINES, VOCAB_SIZE, Setting

MASKS = ("input_ids", "attention_mask", "labels", "context_indices", "context_mask", "target_mask")
"""What the arithmetic of a batch depends on."""

PROFILED_STEPS = 4
"""Updates, after those that are timed, whose parts are timed on an accelerator, where that costs time itself."""


class RandomRows(Dataset):
    """Rows of random ordinary tokens: speed does not depend on what they say."""

    def __init__(self, num_rows: int, length: int):
        self.tokens = np.random.default_rng(0).integers(1000, VOCAB_SIZE, (num_rows, length))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.tokens[index], "example_ids": index, "epoch": 0}


class BareRows(RandomRows):
    """The same rows as the stock collator wants them."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.tokens[index].tolist()}


def made_up_tokenizer() -> BertTokenizer:
    """Returns a tokenizer of the usual size, so that nothing has to be downloaded."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [f"token{number}" for number in range(VOCAB_SIZE - len(tokens))]
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})


class Clock(TrainerCallback):
    """Times updates, and their parts.

    Args:
        setting ([`Setting`]): How many updates count.
        device (`torch.device`): Waited for before a time is taken.
    """

    def __init__(self, setting: Setting, device: torch.device):
        self.first, self.last, self.device = setting.warmup, setting.warmup + setting.steps, device
        self.profiled = 0 if device.type == "cpu" else PROFILED_STEPS
        self.parts: dict[str, float] = defaultdict(float)
        self.steps, self.start, self.end, self.profile_end = 0, 0.0, 0.0, 0.0
        self.batches: list[tuple[dict[str, Any], bool]] = []

    @property
    def num_steps(self) -> int:
        """Updates to run."""
        return self.last + self.profiled

    def tick(self) -> None:
        """Counts an update that is over."""
        self.steps += 1
        if self.steps in (self.first, self.last, self.num_steps):
            synchronize(self.device)
            now = time.perf_counter()
            self.start = now if self.steps == self.first else self.start
            self.end = now if self.steps == self.last else self.end
            self.profile_end = now

    def on_step_end(self, args, state, control, **kwargs):
        self.tick()

    def keep(self, batch: dict[str, Any], skipped: bool = False) -> None:
        """Remembers the batch of an update that is timed."""
        if self.first <= self.steps < self.last:
            self.batches.append((batch, skipped))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time of what runs inside to a part of the update.

        What an accelerator computes is known after waiting for it, in updates of its own. How long a batch is waited
        for, is not to be seen there, since loaders get more time: it is taken of the updates that count.
        """
        waits = name != "data"
        first, last = (self.last, self.num_steps) if self.profiled and waits else (self.first, self.last)
        timed = first <= self.steps < last
        if timed and waits:
            synchronize(self.device)
        start = time.perf_counter()
        yield
        if timed:
            if waits:
                synchronize(self.device)
            self.parts[name] += time.perf_counter() - start

    def timing(self, name: str, function: Callable) -> Callable:
        """Returns the function, timed as a part."""

        def timed(*args, **kwargs):
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    def report(self) -> dict[str, Any]:
        """Returns seconds per update, and which share of an update, of those that it was timed in, each part is."""
        counted = self.end - self.start
        profiled = self.profile_end - self.end if self.profiled else counted
        shares = {name: spent / (counted if name == "data" else profiled) for name, spent in self.parts.items()}
        return {"seconds": counted / (self.last - self.first), "shares": shares}


class TimedParts(TrainerCallback):
    """Puts the clock on the parts of a Trainer, once there is an optimizer."""

    def __init__(self, trainer: Trainer, clock: Clock):
        self.trainer, self.clock = trainer, clock
        trainer.get_batch_samples = clock.timing("data", trainer.get_batch_samples)
        self.compute_loss = clock.timing("forward", trainer.compute_loss)
        trainer.compute_loss = self.kept
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, EMACallback):
                callback.on_step_end = clock.timing("ema", callback.on_step_end)

    def kept(self, model, inputs, *args, **kwargs):
        """Computes the loss of a batch that the clock remembers."""
        self.clock.keep(inputs, isinstance(self.trainer, PredRecTrainer) and self.trainer.skips_jepa())
        return self.compute_loss(model, inputs, *args, **kwargs)

    def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
        self.trainer.accelerator.backward = self.clock.timing("backward", self.trainer.accelerator.backward)
        clip = self.trainer.accelerator.clip_grad_norm_
        self.trainer.accelerator.clip_grad_norm_ = self.clock.timing("optimizer", clip)
        optimizer.step = self.clock.timing("optimizer", optimizer.step)


def build_model(setting: Setting) -> PredRecForPreTraining:
    """Builds the pre-training model of an arm."""
    model = PredRecForPreTraining(setting.pretraining_config())
    if setting.options().get("float32_target"):
        in_autocast = model.target_states

        def target_states(*args):
            with torch.autocast(args[0].device.type, enabled=False):
                return in_autocast(*args)

        model.target_states = target_states
    return model


def build_collator(setting: Setting, tokenizer: BertTokenizer, unpad: bool) -> DataCollatorForPreTraining:
    """Builds the collator of an arm."""
    config, options = setting.pretraining_config(), setting.options()
    return DataCollatorForPreTraining(
        tokenizer,
        num_target_blocks=2 if config.has_jepa_branch else 0,
        num_mask_sets=options.get("num_mask_sets", 1),
        crop_length=options.get("crop_length"),
        label_view=config.mlm_view,
        unpad=unpad,
        max_seq_length=setting.length,
    )


def needed_flops(setting: Setting, batches: list[tuple[dict[str, Any], bool]]) -> float:
    """Returns the operations that the timed updates needed, on average.

    Args:
        setting ([`Setting`]): The arm.
        batches (`list`): Of each update, the batch and whether it did without the JEPA branch.
    """
    config, totals = setting.pretraining_config(), []
    for batch, skipped in batches:
        parts = training_flops(config, {name: batch[name].cpu() for name in MASKS if name in batch})
        totals.append(parts["text"] + parts["head"] if skipped else sum(parts.values()))
    return float(np.mean(totals))


def collator_seconds(setting: Setting, tokenizer: BertTokenizer, repeats: int = 20) -> float:
    """Returns how long one batch takes to make on one core."""
    collator, rows = build_collator(setting, tokenizer, unpad=True), RandomRows(setting.batch_size, setting.length)
    features, best = [rows[row] for row in range(len(rows))], float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        collator(features)
        best = min(best, time.perf_counter() - start)
    return best


def common_arguments(setting: Setting, clock: Clock, folder: str) -> dict[str, Any]:
    """Returns what both Trainers are told."""
    return {
        "output_dir": folder,
        "max_steps": clock.num_steps,
        "per_device_train_batch_size": setting.batch_size // setting.num_processes,
        "learning_rate": 1e-4,
        "bf16": True,
        "use_cpu": clock.device.type == "cpu",
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "torch_compile": setting.torch_compile,
    }


def run_predrec(setting: Setting, clock: Clock, tokenizer: BertTokenizer, folder: str) -> None:
    """Trains an arm as the training command does."""
    use_all_cores()
    if clock.device.type == "cpu":
        keep_freed_memory()
    arguments = PredRecTrainingArguments(
        **common_arguments(setting, clock, folder), dataloader_num_workers=setting.num_workers
    )
    trainer = PredRecTrainer(
        model=build_model(setting),
        args=arguments,
        data_collator=build_collator(setting, tokenizer, unpad=False),
        train_dataset=RandomRows(clock.num_steps * setting.batch_size, setting.length),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    if setting.options().get("jepa_dropout"):  # Every other update: a few draws would say little about the share.
        trainer.skips_jepa = lambda: trainer.state.global_step % 2 == 1
    trainer.add_callback(TimedParts(trainer, clock))
    trainer.train()


def run_bert(setting: Setting, clock: Clock, tokenizer: BertTokenizer, folder: str) -> None:
    """Trains `BertForMaskedLM` as its users do."""
    trainer = Trainer(
        model=BertForMaskedLM(setting.bert_config()),
        args=TrainingArguments(**common_arguments(setting, clock, folder)),
        data_collator=DataCollatorForLanguageModeling(tokenizer),
        train_dataset=BareRows(clock.num_steps * setting.batch_size, setting.length),
        callbacks=[clock],
    )
    trainer.add_callback(TimedParts(trainer, clock))
    trainer.train()


def run_plain(setting: Setting, clock: Clock, tokenizer: BertTokenizer, folder: str) -> None:
    """Trains with the plain step."""
    model = PredRecForPreTraining(setting.pretraining_config()).train().to(clock.device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    rows = RandomRows(clock.num_steps * setting.batch_size, setting.length)
    batches = DataLoader(rows, setting.batch_size, collate_fn=build_collator(setting, tokenizer, unpad=False))
    for batch in batches:
        batch = {name: tensor.to(clock.device) for name, tensor in batch.items()}
        clock.keep(batch)
        with clock.part("forward"), torch.autocast(clock.device.type, torch.bfloat16):
            loss = plain_loss(model, batch)
        with clock.part("backward"):
            loss.backward()
        with clock.part("optimizer"):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        with clock.part("ema"):
            if model.target_encoder is not None:
                plain_average(model.target_encoder, model.encoder, 0.996)
        clock.tick()


def measure(setting: Setting) -> dict[str, Any]:
    """Times one setting.

    Returns:
        `dict` with `seconds` per update, `shares` of its parts, `tokens_per_second`, `flops_per_second`, `peak_memory`
        in bytes and `collator_seconds` per batch on one core.
    """
    device = torch.device("cpu")
    if not setting.use_cpu and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
    clock, tokenizer = Clock(setting, device), made_up_tokenizer()
    set_seed(0)
    run = {"bert": run_bert, "plain": run_plain, "plain_mlm": run_plain}.get(setting.arm, run_predrec)
    with tempfile.TemporaryDirectory() as folder:
        run(setting, clock, tokenizer, folder)
    found = clock.report()
    found["tokens_per_second"] = setting.batch_size * setting.length / found["seconds"]
    found["flops_per_second"] = needed_flops(setting, clock.batches) * setting.num_processes / found["seconds"]
    found["peak_memory"] = peak_memory(device)
    if setting.arm not in BASELINES:
        torch.set_num_threads(1)
        found["collator_seconds"] = collator_seconds(setting, tokenizer)
    return found


def main() -> None:
    """Reads a setting as JSON from the command line, and prints the result as the last line."""
    found = measure(Setting(**json.loads(sys.argv[1])))
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
