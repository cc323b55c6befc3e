"""What all objectives share in training: exact normalisation, named terms, safe checkpoints, resuming to the bit."""

import json
import math
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput, has_length

from ..data_collators import NumberedRows, PlacedCollator, StreamedRows
from ..errors import UserError
from .checkpoints import (
    DATA_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    check_data,
    committed_checkpoint,
    resume_point,
    rotate,
)
from .epoch_ends import EpochEndCallback
from .finite import Finding, FiniteGuard, SkipCallback, check_finite, not_finite_spreads
from .integrity import check_whole
from .interrupt import start_worker
from .length_groups import SeededLengthGroups
from .main_process import main_process_first
from .metrics import MetricSums
from .random_state import kept_random_state
from .run_args import RunArguments
from .speed import SpeedLog
from .strategies import autocast, check_strategy, compute_as_copies_do, in_step, is_sharded, whole_weights
from .streaming import StreamEpochCallback, gone_on, save_place, take_place

MOST_VERSIONS = 32
"""How often a model may be compiled anew in a run."""


class ObjectiveTrainer(Trainer):
    """A `Trainer` for models that compute their own loss of several terms.

    Losses are means over all that counts in an optimizer update, whatever the accumulation and the number of
    processes; every term is logged by name without waiting for the device between log lines; checkpoints appear whole
    or not at all, and what is resumed from them equals what was never interrupted.

    The model returns `loss` and the terms and counts of [`ObjectiveTrainer.TERMS`]; it takes `labels_in_update`,
    `targets_in_update` and `skip_jepa`, and counts with `count_tokens(batch)` what the first two are sums of.

    Args:
        model (`nn.Module`): The model.
        args ([`RunArguments`]): Arguments.
        data_collator (`Callable`): Makes training batches.
        train_dataset, eval_dataset, processing_class (*optional*): As for `Trainer`, in its order.
        recipe (`dict`, *optional*): Resolved recipe; saved with every checkpoint, for the commands to compare.
        card_facts (`dict`, *optional*): Rows for the model card's table, such as the data.
        data_fingerprint (`str`, *optional*): Of the training data; saved with every checkpoint, compared on resume.
        kwargs: As for `Trainer`.
    """

    # Losses leave the model normalised over the whole update.
    loss_is_scaled_for_ga = True

    TERMS = {"mlm_loss": "num_labels", "jepa_loss": "num_targets"}
    """Terms of the loss, and what each is a mean over."""

    COUNTS = ("mlm_correct",)
    """What else is added up."""

    def __init__(
        self,
        model: nn.Module,
        args: RunArguments,
        data_collator: Any,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        recipe: dict | None = None,
        card_facts: dict[str, str] | None = None,
        data_fingerprint: str | None = None,
        **kwargs,
    ):
        for name in ("compute_metrics", "preprocess_logits_for_metrics"):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f"`{name}` is not for this trainer: its evaluations keep no predictions. Leave it out."
                )
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("`compute_loss_func` is not for this trainer: the model computes its loss. Subclass it.")
        if isinstance(eval_dataset, dict):
            raise ValueError(
                "`eval_dataset` must be one dataset: for others call `evaluate(them, metric_key_prefix=)`."
            )
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, processing_class, **kwargs)
        check_strategy(args, self.accelerator, model)
        if args.torch_compile or compiles_itself(model):
            # Few shapes, updates with and without the JEPA branch, and smaller last batches are a version each: beyond
            # the limit, 8 as torch has it, the rest of a run is not compiled any more.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_VERSIONS)
        compute_as_copies_do(self.accelerator)
        self.eval_collator = data_collator
        self.recipe = recipe
        self.card_facts = card_facts or {}
        self.data_fingerprint = data_fingerprint
        self.train_sums = self.new_sums()
        self.finite_guard = FiniteGuard(args.per_device_train_batch_size, args.device)
        self._update_counts: tuple[Tensor, Tensor] | None = None
        self._micro_batches = 1
        self._clock = time.perf_counter()
        self._idle = 0.0
        self._speed = SpeedLog("train"), SpeedLog("eval")
        self._place = None
        self.evaluates_own_rows = True
        if args.num_threads is not None:
            torch.set_num_threads(args.num_threads)
        first, own = self.first_callbacks(), self.own_callbacks()
        there = {type(callback) for callback in self.callback_handler.callbacks}
        for callback in [*first, *own]:
            if type(callback) in there:
                raise ValueError(f"`callbacks`: the trainer adds {type(callback).__name__} by itself; leave it out.")
        # Right behind the stock one, which decides what is due: users' callbacks have the last word on it.
        self.callback_handler.callbacks[1:1] = first
        for callback in own:
            self.add_callback(callback)

    # What an objective decides

    def first_callbacks(self) -> list[TrainerCallback]:
        """Returns the callbacks that decide with the Trainer what is due, before any of the user's."""
        return [*([StreamEpochCallback()] if isinstance(self.train_dataset, StreamedRows) else []), EpochEndCallback()]

    def own_callbacks(self) -> list[TrainerCallback]:
        """Returns the callbacks that belong to the method, in their order, behind the user's."""
        return [SkipCallback(self.finite_guard)] if self.args.non_finite == "skip" else []

    def new_sums(self) -> MetricSums:
        """Returns empty sums of the objective's terms."""
        return MetricSums(self.args.device, self.TERMS, self.COUNTS)

    def skips_jepa(self) -> bool:
        """Does this update do without the second term? The same on every process."""
        return False

    def schedule_values(self) -> dict[str, float]:
        """Returns what is scheduled, as it is now, for the log."""
        return {}

    def more_means(self, means: dict[str, float], totals: Tensor) -> dict[str, float]:
        """Returns further metrics of an evaluation from its means and sums, among them the `loss` of these means."""
        return {}

    def check_checkpoint(self, checkpoint: Path) -> None:
        """Raises `UserError` if a checkpoint is of another model."""

    def write_weights(self, directory: str) -> None:
        """Writes everything that training changes, for a checkpoint."""
        if is_sharded(self.accelerator):
            self._save(directory, state_dict=whole_weights(self.model, self.accelerator))
        else:
            super().save_model(directory, _internal_call=True)

    def export(self, directory: Path, weights: dict[str, Tensor] | None) -> None:
        """Writes what training was for; the weights are given when the model holds shards of them."""
        raise NotImplementedError

    # Optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Decays matrices only: no bias, no norm, no mask token, no loss weight."""
        shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
        return [name for name in super().get_decay_parameter_names(model) if shapes.get(name, 0) >= 2]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Creates the optimizer and checks that it trains every trainable parameter exactly once."""
        optimizer = super().create_optimizer(*([] if model is None else [model]))
        grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        trainable = {id(p) for p in (model or self.model).parameters() if p.requires_grad}
        if len(grouped) != len(set(grouped)) or set(grouped) != trainable:
            raise ValueError(
                "`optimizers`: an optimizer must hold every trainable parameter once and no other: give it those of "
                "`model.parameters()` that have `requires_grad`. The target encoder is not trained."
            )
        return optimizer

    # Training

    def get_train_dataloader(self) -> DataLoader:
        """Batches of a stream carry their place in it."""
        kept = self.data_collator
        if isinstance(self.train_dataset, StreamedRows):
            self.data_collator = PlacedCollator(kept)
        try:
            return self._draws_for_itself(super().get_train_dataloader())
        finally:
            self.data_collator = kept

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        # The stock method looks for the column of lengths in these alone.
        sampler = super()._get_train_sampler(rows.rows if isinstance(rows, NumberedRows) else train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            epoch = partial(_whole_epochs, self)
            return SeededLengthGroups(sampler.batch_size, lengths=list(sampler.lengths), seed=seed, epoch=epoch)
        return sampler

    def _draws_for_itself(self, loader: DataLoader) -> DataLoader:
        """Gives a loader its own generator, so that beginning to read changes no other draw, with workers or without.

        The workers leave signals to this process.
        """
        inner = getattr(loader, "base_dataloader", loader)
        if getattr(inner.worker_init_fn, "func", None) is not start_worker:  # Persistent workers have it already.
            inner.generator = torch.Generator().manual_seed(self.args.seed)
            inner.worker_init_fn = partial(start_worker, begin=inner.worker_init_fn)
        return loader

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Fetches the batches of one update and counts its tokens, over all processes."""
        if self.state.global_step >= self.state.max_steps:
            # Resumed after its last update, as when the export had failed: the stock loop would train one more.
            self.control.should_training_stop = True
            return [], None
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._place = take_place(samples)
        self._speed[0].add(self.get_total_train_batch_size(self.args))
        self._micro_batches, self._update_counts = max(1, len(samples)), None
        if samples and (len(samples) > 1 or self.args.world_size > 1):
            counts = sum(torch.stack(self.model.count_tokens(batch)) for batch in samples).to(device)
            counts = self.accelerator.reduce(counts, reduction="sum")
            self._update_counts = (counts[0], counts[1])
        return samples, None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Computes this batch's part of the update's loss, and remembers its terms."""
        if self._update_counts is not None:
            inputs = inputs | {
                "labels_in_update": self._update_counts[0],
                "targets_in_update": self._update_counts[1],
            }
        if self.skips_jepa():
            inputs = inputs | {"skip_jepa": True}
        # Around a sharded model, accelerate puts no autocast.
        with autocast(self.accelerator) if is_sharded(self.accelerator) else nullcontext():
            output = model(**inputs)
        loss, is_finite = output.loss, output.loss.detach().isfinite()
        self.finite_guard.watch_loss(loss, self.state.global_step + 1, inputs.get("example_ids"))
        self.train_sums.add(output, _count_tokens(inputs), steps=1 / self._micro_batches, only_if=is_finite)
        loss = not_finite_spreads(loss)
        return (loss, output) if return_outputs else loss

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Computes one batch's gradient; looks at the update's gradient when it is complete."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            trainable = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
            self.finite_guard.watch_gradients(trainable, self.state.global_step + 1)
        # The Trainer adds up what is returned here, and would never get rid of a NaN.
        return torch.where(loss.isfinite(), loss, 0)

    def floating_point_ops(self, inputs) -> int:
        """Not counted per step: the stock estimate walks all parameters and counts frozen ones."""
        return 0

    def raise_if_not_finite(self) -> Finding:
        """Raises [`NonFiniteLossError`] if the numbers make the run worthless; see [`check_finite`]."""
        return check_finite(self.finite_guard, self.accelerator, self.model, self.args, self.state.global_step)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the loss terms by name, what is scheduled, and the speed to the Trainer's own training log."""
        if "loss" in logs and "eval_loss" not in logs:
            found = self.raise_if_not_finite()
            if self.args.non_finite == "skip" or self.accelerator.scaler is not None:
                logs["skipped_steps"] = found.skipped
            sums = self.accelerator.reduce(self.train_sums.values, reduction="sum")
            sums[:2] /= self.args.world_size
            means = self.train_sums.means(sums)
            now, tokens = time.perf_counter(), means.pop("tokens")
            if sums[0] or found.skipped:
                # Where every loss since the last line was skipped, there is none.
                logs |= {"loss": math.nan} | means
            logs |= self.schedule_values()
            logs["tokens"] = int(tokens)
            logs["tokens_per_second"] = round(tokens / max(1e-9, now - self._clock - self._idle), 1)
            self._clock, self._idle = now, 0.0
            self.train_sums.reset()
        for speed in self._speed:
            speed.correct(logs)
        super().log(logs, start_time)

    @contextmanager
    def _not_training(self):
        """Keeps the time spent on evaluation and saving out of tokens per second."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._idle += time.perf_counter() - start

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        """As in `Trainer`; a checkpoint that is damaged, or of another model or other data, is refused.

        With `True`, damaged checkpoints at the end are passed over.

        Raises:
            UserError: If there is no such checkpoint, or the run cannot go on from it.
        """
        if resume_from_checkpoint:
            resume_from_checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
        self._clock, self._idle = time.perf_counter(), 0.0
        self._speed = SpeedLog("train"), self._speed[1]
        self.train_sums.reset()
        self.finite_guard.reset()
        with gone_on(self.train_dataset, self.args, resume_from_checkpoint):
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        self.raise_if_not_finite()
        return result

    def _checkpoint_to_resume(self, wanted: str | bool) -> str:
        if isinstance(wanted, bool):
            with main_process_first(self.args):
                checkpoint = resume_point(self.args.output_dir, wanted)
        else:
            checkpoint = Path(wanted) if Path(wanted).is_dir() else None
        if checkpoint is None:
            where = self.args.output_dir if isinstance(wanted, bool) else wanted
            raise UserError(f"`resume_from_checkpoint`: there is no checkpoint to go on from at {str(where)!r}.")
        check_whole(checkpoint)
        if not self.args.ignore_recipe_mismatch:
            check_data(checkpoint, self.data_fingerprint)
        self.check_checkpoint(checkpoint)
        return str(checkpoint)

    # Evaluation

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """Batches by the evaluation's own collator; processes get no row twice to come out even.

        Persistent workers read the Trainer's own rows alone: the stock method would have them read these for any
        others, too.
        """
        args, own = self.args, eval_dataset is None or eval_dataset is self.eval_dataset
        kept_loaders = getattr(self, "_eval_dataloaders", {})
        if kept_loaders and kept_loaders["eval"].dataset is not self.eval_dataset:  # Rows were exchanged since.
            kept_loaders.clear()
        kept = (
            self.data_collator,
            self.accelerator.even_batches,
            args.dataloader_drop_last,
            args.dataloader_persistent_workers,
        )
        self.data_collator, self.accelerator.even_batches = self.eval_collator, False
        args.dataloader_drop_last, args.dataloader_persistent_workers = False, own and kept[3]
        try:
            return self._draws_for_itself(super().get_eval_dataloader(eval_dataset))
        finally:
            self.data_collator, self.accelerator.even_batches = kept[:2]
            args.dataloader_drop_last, args.dataloader_persistent_workers = kept[2:]

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """As in evaluation."""
        return self.get_eval_dataloader(test_dataset)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict[str, float]:
        """As the stock method; what it logs as `eval_` of other rows than the Trainer's own is not in the history.

        The history decides on a collapse and is what cards show.
        """
        if self.is_in_train:
            self.raise_if_not_finite()
        own = eval_dataset is None or eval_dataset is self.eval_dataset
        history, self.evaluates_own_rows = list(self.state.log_history), own
        try:
            # Some losses draw random directions: evaluating, the monitor included, must not change what training
            # draws.
            with self._not_training(), kept_random_state(self.args.device):
                return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        finally:
            self.evaluates_own_rows = True
            if not own and metric_key_prefix == "eval":
                self.state.log_history = history

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Averages the terms over all that they are means over, whatever the batches."""
        model = self._wrap_model(self.model, training=False)
        model.eval()
        sums, examples, start = self.new_sums(), 0, time.perf_counter()
        self._speed = self._speed[0], SpeedLog(metric_key_prefix)
        for inputs, counts in in_step(dataloader, self.accelerator):
            inputs = self._prepare_inputs(inputs)
            with torch.no_grad(), autocast(self.accelerator):
                output = self.model(**inputs)
            if not counts:
                continue
            sums.add(output, _count_tokens(inputs), steps=1)
            examples += len(inputs["input_ids"])
            self._speed[1].add(0)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        totals = self.accelerator.reduce(sums.values, reduction="sum")
        # Rows of all processes: a batch may hold several documents of one.
        examples = self.num_examples(dataloader) if has_length(dataloader) else examples
        self._speed[1].samples = examples
        means = sums.means(totals)
        tokens = means.pop("tokens")
        means |= self.schedule_values()
        means["tokens_per_second"] = round(tokens / (time.perf_counter() - start), 1)
        means |= self.more_means(means, totals)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=examples)

    # Checkpoints and export

    def _save_checkpoint(self, model, trial):
        """Saves everything that resuming needs, so that the checkpoint appears whole or not at all."""
        self.raise_if_not_finite()
        run_dir = Path(self._get_output_dir(trial=trial))
        final = run_dir / f"checkpoint-{self.state.global_step}"
        since_log = time.perf_counter() - self._clock - self._idle
        with self._not_training(), committed_checkpoint(final, self.args.should_save, self.accelerator) as staging:
            self.save_model(str(staging), _internal_call=True)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(staging))
                self._save_scaler(str(staging))
                self._save_rng_state(str(staging))
                metrics = staging / METRICS_FILE.format(rank=self.args.process_index)
                times = {"seconds_since_log": since_log, "train_seconds": self._speed[0].seconds}
                self.train_sums.save(metrics, **self.finite_guard.state(), **times)
            if self.args.should_save:
                best = run_dir / f"checkpoint-{self.state.best_global_step}"
                if self.state.best_global_step and (best == final or best.is_dir()):
                    self.state.best_model_checkpoint = str(best)
                for part in [*self.callback_handler.callbacks, self.control]:
                    if isinstance(part, ExportableState):
                        self.state.stateful_callbacks[type(part).__name__] = part.state()
                self.state.save_to_json(str(staging / "trainer_state.json"))
                save_place(staging, self._place, self.args)
                if self.data_fingerprint is not None:
                    (staging / DATA_FILE).write_text(self.data_fingerprint, encoding="utf-8")
                if self.recipe is not None:
                    saved = self.recipe | {"world_size": self.args.world_size}
                    (staging / RECIPE_FILE).write_text(json.dumps(saved, indent=1), encoding="utf-8")
        if self.args.should_save and self.args.save_total_limit:
            rotate(run_dir, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _finalize_training(self, *args, **kwargs):
        """Ends the run without what `Trainer` does where one checkpoint is kept: it would delete the last one."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args, **kwargs)
        finally:
            self.args.save_total_limit = limit

    def _determine_best_metric(self, metrics, trial) -> bool:
        """Saves whenever evaluation finds a new best, so that the best checkpoint is there to be kept."""
        is_new_best = super()._determine_best_metric(metrics, trial)
        if is_new_best and self.args.save_strategy != "no":
            self.control.should_save = True
        # A strategy that saves the best alone would take back what an interruption has asked for.
        return is_new_best or self.control.should_save

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model=model)
        self.take_numbers(resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.is_deepspeed_enabled:  # It loads weights by itself.
            self.take_numbers(checkpoint)

    def take_numbers(self, checkpoint: str) -> None:
        """Reads what a checkpoint holds beside weights and the optimizer's state."""
        saved = Path(checkpoint) / METRICS_FILE.format(rank=self.args.process_index)
        numbers = self.train_sums.load(saved)
        self.finite_guard.load(numbers)
        self._clock -= numbers.get("seconds_since_log", 0.0)
        self._speed[0].before = numbers.get("train_seconds", 0.0)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Exports what was trained. A checkpoint holds the whole model, as the Trainer's own does."""
        # Pushing to the Hub, too, calls this "internally", without a directory: it wants the export.
        root = Path(self.args.output_dir)
        directory = root if output_dir is None else Path(output_dir)
        if _internal_call and directory != root:
            self.write_weights(output_dir)
            return
        self.raise_if_not_finite()
        weights = whole_weights(self.model, self.accelerator)
        if self.args.should_save:
            self.export(directory, weights)


def compiles_itself(model: nn.Module) -> bool:
    """Whether a model has parts that are compiled without being asked to: flex attention."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return any(getattr(config, "_attn_implementation", None) == "flex_attention" for config in configs)


def _whole_epochs(trainer: Trainer) -> int:
    """Returns how many epochs are over."""
    return int(trainer.state.epoch + 1e-6)


def _count_tokens(inputs: dict[str, Tensor]) -> Tensor | int:
    """Returns the number of real tokens in a batch."""
    mask = inputs.get("attention_mask")
    return math.prod(inputs["input_ids"].shape) if mask is None else mask.sum()
