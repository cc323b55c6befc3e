"""The Trainer: exact loss normalisation, named loss terms, the EMA, safe checkpoints, native export."""

import json
import math
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..data_collators import DataCollatorForPreTraining, PlacedCollator, StreamedRows
from ..modeling import PredRecForPreTraining
from .checkpoints import DATA_FILE, METRICS_FILE, committed_checkpoint, rotate
from .collapse import MIN_MONITORED, CollapseMonitorCallback
from .ema import EMACallback, ScheduleCallback, ema_decay_at
from .epoch_ends import EpochEndCallback
from .export import export_encoder
from .finite import Finding, FiniteGuard, SkipCallback, check_finite, not_finite_spreads
from .interrupt import start_worker
from .metrics import MetricSums
from .model_card import write_model_card
from .speed import SpeedLog
from .streaming import StreamEpochCallback, gone_on, save_place, take_place
from .training_args import PredRecTrainingArguments

logger = logging.get_logger(__name__)


class PredRecTrainer(Trainer):
    """Trains a [`PredRecForPreTraining`].

    What it adds to `Trainer`: losses are means over all tokens of an optimizer update, whatever the accumulation and
    the number of processes; every loss term is logged by name without waiting for the device between log lines; the
    target encoder follows by [`EMACallback`]; [`CollapseMonitorCallback`] watches; checkpoints appear whole or not at
    all; and `save_model` writes the trained encoder, as a checkpoint of its own architecture.

    Args:
        model ([`PredRecForPreTraining`]): The model.
        args ([`PredRecTrainingArguments`]): Arguments.
        data_collator ([`DataCollatorForPreTraining`]): Makes training batches; evaluation uses a copy whose labels
            are always those of the full view, so that runs with different `mlm_view` compare.
        recipe (`dict`, *optional*): Resolved recipe; saved with every checkpoint and compared on resume.
        card_facts (`dict`, *optional*): Rows for the model card's table, such as the data.
        data_fingerprint (`str`, *optional*): Of the training data; saved with every checkpoint.
        kwargs: As for `Trainer`.
    """

    # Losses leave the model normalised over the whole update.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PredRecForPreTraining,
        args: PredRecTrainingArguments,
        data_collator: DataCollatorForPreTraining,
        recipe: dict | None = None,
        card_facts: dict[str, str] | None = None,
        data_fingerprint: str | None = None,
        **kwargs,
    ):
        super().__init__(model=model, args=args, data_collator=data_collator, **kwargs)
        # Compiled for a CPU, attention has no kernel for sequences laid end to end.
        unpad = model.takes_layout and not (args.torch_compile and args.device.type == "cpu")
        self.data_collator = replace(data_collator, unpad=unpad)
        self.eval_collator = replace(self.data_collator, num_mask_sets=1, label_view="full", fixed_epoch=0)
        self.recipe = recipe
        self.card_facts = card_facts or {}
        self.data_fingerprint = data_fingerprint
        self.train_sums = MetricSums(args.device)
        self.finite_guard = FiniteGuard(args.per_device_train_batch_size, args.device)
        self._update_counts: tuple[Tensor, Tensor] | None = None
        self._micro_batches = 1
        self._clock = time.perf_counter()
        self._idle = 0.0
        self._speed = SpeedLog("train"), SpeedLog("eval")
        self._place = None
        callbacks: list[TrainerCallback] = [ScheduleCallback(), EpochEndCallback()]
        if args.non_finite == "skip":
            callbacks.append(SkipCallback(self.finite_guard))
        if model.config.has_target_encoder:
            callbacks.append(EMACallback(self.finite_guard))
        if isinstance(self.train_dataset, StreamedRows):
            callbacks.insert(0, StreamEpochCallback())
        if self.eval_dataset is not None and len(self.eval_dataset) >= MIN_MONITORED:
            callbacks.append(CollapseMonitorCallback(self))
        elif self.eval_dataset is not None:
            logger.warning(f"There is no collapse monitor: it needs {MIN_MONITORED} held-out rows.")
        for callback in callbacks:
            self.add_callback(callback)

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
            raise RuntimeError("The optimizer does not hold every trainable parameter exactly once.")
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

    def _draws_for_itself(self, loader: DataLoader) -> DataLoader:
        """Gives a loader its own generator, so that beginning to read changes no other draw, with workers or without.

        The workers leave signals to this process.
        """
        inner = getattr(loader, "base_dataloader", loader)
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
        if self._skips_jepa():
            inputs = inputs | {"skip_jepa": True}
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

    def _skips_jepa(self) -> bool:
        """Draws, from seed and update alone, whether this update does without the JEPA branch, on every process."""
        share = self.model.config.jepa_dropout if self.model.active_objective == "hybrid" else 0
        return share > 0 and np.random.default_rng((self.args.seed, self.state.global_step)).random() < share

    def floating_point_ops(self, inputs) -> int:
        """Not counted per step: the stock estimate walks all parameters and counts frozen ones."""
        return 0

    def raise_if_not_finite(self) -> Finding:
        """Raises [`NonFiniteLossError`] if the numbers make the run worthless; see [`check_finite`]."""
        return check_finite(self.finite_guard, self.accelerator, self.model, self.args, self.state.global_step)

    # Logging

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the loss terms by name, lambda, the EMA decay and the speed to the Trainer's own training log."""
        if "loss" in logs and "eval_loss" not in logs:
            found = self.raise_if_not_finite()
            if self.args.non_finite == "skip" or self.accelerator.scaler is not None:
                logs["skipped_steps"] = found.skipped
            sums = self.accelerator.reduce(self.train_sums.values, reduction="sum")
            sums[:2] /= self.args.world_size
            means = self.train_sums.means(sums)
            now, tokens = time.perf_counter(), means.pop("tokens")
            logs |= means
            logs |= self._schedule_values()
            logs["tokens_per_second"] = round(tokens / max(1e-9, now - self._clock - self._idle), 1)
            self._clock, self._idle = now, 0.0
            self.train_sums.reset()
        for speed in self._speed:
            speed.correct(logs)
        super().log(logs, start_time)

    def _schedule_values(self) -> dict[str, float]:
        """Returns lambda and the EMA decay as they are now; what the objective lacks is left out."""
        values = {}
        if self.model.active_objective == "hybrid":
            with torch.no_grad():
                jepa, mlm, _ = self.model.loss_weights()
            values["loss_lambda"] = (jepa / (jepa + mlm)).item()
        if self.model.config.has_target_encoder and self.model.active_objective != "mlm" and self.state.global_step:
            values["ema_decay"] = ema_decay_at(
                self.state.global_step, self.state.max_steps, self.args.ema_decay, self.args.ema_decay_end
            )
        return values

    @contextmanager
    def _not_training(self):
        """Keeps the time spent on evaluation and saving out of tokens per second."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._idle += time.perf_counter() - start

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        self._clock, self._idle = time.perf_counter(), 0.0
        self._speed = SpeedLog("train"), self._speed[1]
        with gone_on(self.train_dataset, self.args, resume_from_checkpoint):
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        self.raise_if_not_finite()
        return result

    # Evaluation

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """Batches whose labels are those of the full view; processes get no row twice to come out even."""
        kept = self.data_collator, self.accelerator.even_batches, self.args.dataloader_drop_last
        self.data_collator, self.accelerator.even_batches, self.args.dataloader_drop_last = (
            self.eval_collator,
            False,
            False,
        )
        try:
            return self._draws_for_itself(super().get_eval_dataloader(eval_dataset))
        finally:
            self.data_collator, self.accelerator.even_batches, self.args.dataloader_drop_last = kept

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        if self.is_in_train:
            self.raise_if_not_finite()
        # Some losses draw random directions: evaluating, the monitor included, must not change what training draws.
        with self._not_training(), torch.random.fork_rng():
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Averages `mlm_loss` and `jepa_loss` over all tokens, `loss` over batches; masks are those of epoch 0."""
        model = self._wrap_model(self.model, training=False)
        model.eval()
        sums, examples, start = MetricSums(self.args.device), 0, time.perf_counter()
        self._speed = self._speed[0], SpeedLog(metric_key_prefix)
        for inputs in dataloader:
            inputs = self._prepare_inputs(inputs)
            with torch.no_grad(), self.accelerator.autocast():
                output = self.model(**inputs)
            sums.add(output, _count_tokens(inputs), steps=1)
            examples += len(inputs["input_ids"])
            self._speed[1].add(len(inputs["input_ids"]))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        totals = self.accelerator.reduce(sums.values, reduction="sum")
        means = MetricSums.means(totals)
        tokens = means.pop("tokens")
        means |= self._schedule_values()
        means["tokens_per_second"] = round(tokens / (time.perf_counter() - start), 1)
        labels, correct = totals[MetricSums.index("labels")], totals[MetricSums.index("mlm_correct")]
        if labels:
            means["mlm_accuracy"] = float(correct / labels)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=examples)

    # Checkpoints and export

    def _save_checkpoint(self, model, trial):
        """Saves everything that resuming needs, so that the checkpoint appears whole or not at all."""
        self.raise_if_not_finite()
        run_dir = Path(self._get_output_dir(trial=trial))
        final = run_dir / f"checkpoint-{self.state.global_step}"
        with self._not_training(), committed_checkpoint(final, self.args.should_save, self.accelerator) as staging:
            self.save_model(str(staging), _internal_call=True)
            if not self.args.save_only_model:
                self._save_optimizer_and_scheduler(str(staging))
                self._save_scaler(str(staging))
                self._save_rng_state(str(staging))
                metrics = staging / METRICS_FILE.format(rank=self.args.process_index)
                self.train_sums.save(metrics, **self.finite_guard.state())
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
                    (staging / "recipe.json").write_text(json.dumps(self.recipe, indent=1), encoding="utf-8")
        if self.args.should_save and self.args.save_total_limit:
            rotate(run_dir, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _determine_best_metric(self, metrics, trial) -> bool:
        """Saves whenever evaluation finds a new best, so that the best checkpoint is there to be kept."""
        is_new_best = super()._determine_best_metric(metrics, trial)
        if is_new_best and self.args.save_strategy != "no":
            self.control.should_save = True
        # A strategy that saves the best alone would take back what an interruption has asked for.
        return is_new_best or self.control.should_save

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model=model)
        checkpoint = Path(resume_from_checkpoint)
        self.model.config.active_objective = json.loads((checkpoint / "config.json").read_text("utf-8")).get(
            "active_objective"
        )
        self.finite_guard.load(self.train_sums.load(checkpoint / METRICS_FILE.format(rank=self.args.process_index)))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Exports the trained encoder with its head. A checkpoint holds the whole model, as the Trainer's own does."""
        # Pushing to the Hub, too, calls this "internally", without a directory: it wants the export.
        root = Path(self.args.output_dir)
        directory = root if output_dir is None else Path(output_dir)
        if _internal_call and directory != root:
            super().save_model(output_dir, _internal_call=True)
            return
        self.raise_if_not_finite()
        if self.args.should_save:
            export_encoder(self.model, self.processing_class, directory)

    def create_model_card(self, *args, **kwargs) -> None:
        """Writes the model card of the run."""
        if self.args.should_save:
            write_model_card(self)

    # The Hub. `publish` stands on this package, so it is imported only when it is wanted.

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Creates the repository, before anything is trained, so that a wrong token is found at once."""
        if self.is_world_process_zero():
            from ..publish.upload import create_repository

            name = self.args.hub_model_id or Path(self.args.output_dir).resolve().name
            private = self.args.hub_private_repo if private is None else private
            self.hub_model_id = create_repository(name, private, token or self.args.hub_token)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        token: str | None = None,
        revision: str | None = None,
        **kwargs,
    ) -> str | None:
        """Exports the encoder and publishes the run, as the command does; returns the address of the commit.

        Args:
            commit_message, token, revision: Of the commit; token and branch of the arguments when absent.
            kwargs: Of the stock method, which tells it what its model card says; unused.

        Raises:
            UserError: If what is in the output directory is not fit to be published, or the Hub refuses it.
        """
        self.save_model(_internal_call=True)
        self.create_model_card()
        if not self.is_world_process_zero():
            return None
        from ..publish.repository import assemble
        from ..publish.upload import upload

        if self.hub_model_id is None:
            self.init_hf_repo(token)
        source = Path(self.args.output_dir).resolve()
        folder = source.with_name(source.name + "-hub")
        assemble(source, folder, self.hub_model_id)
        return upload(
            folder,
            self.hub_model_id,
            update=True,
            commit_message=commit_message or "End of training",
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
        )


def _count_tokens(inputs: dict[str, Tensor]) -> Tensor | int:
    """Returns the number of real tokens in a batch."""
    mask = inputs.get("attention_mask")
    return math.prod(inputs["input_ids"].shape) if mask is None else mask.sum()
