"""The Trainer of hybrid pre-training: the EMA, the collapse monitor, native export, publishing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.utils import logging

from ..data_collators import DataCollatorForPreTraining
from ..data_collators.numbered_rows import numbered
from ..modeling import PredRecForPreTraining
from ..modeling.encoders import position_limit
from .best import check_evaluations
from .collapse import MIN_MONITORED, CollapseMonitorCallback
from .ema import EMACallback, ScheduleCallback, ema_decay_at
from .export import export_encoder
from .idle import IdleCallback
from .model_card import write_model_card
from .objective_trainer import ObjectiveTrainer
from .trained_weights import check_fits
from .training_args import PredRecTrainingArguments
from .unused_options import describe, unused_options

logger = logging.get_logger(__name__)


class PredRecTrainer(ObjectiveTrainer):
    """Trains a [`PredRecForPreTraining`].

    Beyond what [`ObjectiveTrainer`] adds to `Trainer`, the target encoder follows by [`EMACallback`],
    [`CollapseMonitorCallback`] watches, and `save_model` writes the trained encoder, as a checkpoint of its own
    architecture.

    Args:
        model ([`PredRecForPreTraining`]): The model; see [`PredRecForPreTraining.from_masked_lm`].
        args ([`PredRecTrainingArguments`]): Arguments.
        data_collator ([`DataCollatorForPreTraining`], *optional*): Makes training batches; evaluation uses a copy
            whose labels are always those of the full view, so that runs with different `mlm_view` compare. When
            absent, it is made for the model from `processing_class`.
        train_dataset, eval_dataset (`Dataset`, *optional*): Any rows that have `input_ids`: tokenized ones of
            `datasets`, lists of mappings, [`PackedRows`] or [`DocumentRows`].
        processing_class (`PreTrainedTokenizerBase`, *optional*): The tokenizer, which is saved with the encoder.
        kwargs: As for [`ObjectiveTrainer`] and `Trainer`.

    Raises:
        ValueError: If model, arguments, collator and data are not for one another.
    """

    def __init__(
        self,
        model: PredRecForPreTraining,
        args: PredRecTrainingArguments,
        data_collator: DataCollatorForPreTraining | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        **kwargs,
    ):
        check_kinds(model, args, eval_dataset, kwargs)
        args = check_evaluations(model.config, args)
        if data_collator is None:
            seed = args.seed if args.data_seed is None else args.data_seed
            data_collator = collator_for(model, processing_class, seed)
        check_views(model, data_collator)
        if unused := unused_options(model.config, args, data_collator, eval_dataset is not None):
            logger.warning(describe(unused))
        rows = numbered(train_dataset), numbered(eval_dataset)
        super().__init__(model, args, data_collator, *rows, processing_class, **kwargs)
        # Compiled for a CPU, attention has no kernel for sequences laid end to end.
        unpad = model.takes_layout and not (args.torch_compile and args.device.type == "cpu")
        longest = data_collator.max_seq_length or position_limit(model.encoder)
        self.data_collator = data_collator.changed(unpad=unpad, max_seq_length=longest)
        # A text is evaluated on one context, but on all its crops: one says little.
        sets = data_collator.num_mask_sets if data_collator.crop_length else 1
        self.eval_collator = self.data_collator.changed(num_mask_sets=sets, label_view="full", fixed_epoch=0)

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """As in [`ObjectiveTrainer`], of any rows."""
        return super().get_eval_dataloader(numbered(eval_dataset))

    def own_callbacks(self) -> list[TrainerCallback]:
        """Schedules, the average and the monitor, where they apply."""
        callbacks = [*super().own_callbacks(), ScheduleCallback(), IdleCallback(self)]
        if self.model.config.has_target_encoder:
            callbacks.append(EMACallback(self.finite_guard))
        if self.eval_dataset is not None and len(self.eval_dataset) >= MIN_MONITORED:
            callbacks.append(CollapseMonitorCallback(self))
        elif self.eval_dataset is not None:
            logger.warning(f"There is no collapse monitor: it needs {MIN_MONITORED} held-out rows.")
        return callbacks

    def skips_jepa(self) -> bool:
        """Says, from seed and update alone, whether this update does without the JEPA branch, on every process."""
        if self.model.active_objective != "hybrid":
            return False
        share, step = self.model.config.jepa_dropout, self.state.global_step
        dropped = share > 0 and np.random.default_rng((self.args.seed, step)).random() < share
        return dropped or not self.jepa_has_begun()

    def jepa_has_begun(self) -> bool:
        """Says whether `jepa_start` is over, in float32, as the model holds its progress."""
        progress = np.float32(self.state.global_step / max(1, self.state.max_steps))
        return bool(progress >= np.float32(self.model.config.jepa_start))

    def idle_parameters(self) -> list[nn.Parameter]:
        """Returns the trainable parameters that this update does not train."""
        active, objective = self.model.active_objective, self.model.config.objective
        return self.model.idle_parameters(
            predicts=active != "mlm" and not self.skips_jepa(),
            reconstructs=active != "jepa",
            weighs=active == objective and self.jepa_has_begun(),
        )

    def schedule_values(self) -> dict[str, float]:
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

    def more_means(self, means: dict[str, float], totals: Tensor) -> dict[str, float]:
        """Returns the loss of the averaged terms, and the share of masked tokens that are guessed right."""
        with torch.no_grad():
            jepa, mlm, addend = (weight.item() for weight in self.model.loss_weights())
        more = {"loss": jepa * means.get("jepa_loss", 0.0) + mlm * means.get("mlm_loss", 0.0) + addend}
        index = self.train_sums.index
        labels, correct = totals[index("num_labels")], totals[index("mlm_correct")]
        return more | ({"mlm_accuracy": float(correct / labels)} if labels else {})

    def take_numbers(self, checkpoint: str) -> None:
        """Goes on with the objective that the run may have switched to."""
        super().take_numbers(checkpoint)
        config = json.loads((Path(checkpoint) / "config.json").read_text("utf-8"))
        self.model.config.active_objective = config.get("active_objective")

    def check_checkpoint(self, checkpoint: Path) -> None:
        """As in [`ObjectiveTrainer`]."""
        check_fits(checkpoint, self.model)

    def export(self, directory: Path, weights: dict[str, Tensor] | None) -> None:
        """Writes the trained encoder with its head, as a checkpoint of its own architecture."""
        export_encoder(self.model, self.processing_class, directory, weights)

    def create_model_card(self, *args, **kwargs) -> None:
        """Writes the model card of the run, and the training curves that it shows."""
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


def check_kinds(model: Any, args: Any, eval_dataset: Any, kwargs: dict[str, Any]) -> None:
    """Raises `ValueError` if the Trainer is given something of another kind."""
    if kwargs.get("model_init") is not None:
        raise ValueError(
            "`model_init` is not for this trainer, nor is `hyperparameter_search`, which needs it: pass `model`, and "
            "make a trainer for every trial."
        )
    if not isinstance(model, PredRecForPreTraining):
        raise ValueError(
            f"`model` is {type(model).__name__}; it must be a PredRecForPreTraining: wrap a masked LM by "
            "`PredRecForPreTraining.from_masked_lm(model)`."
        )
    if not isinstance(args, PredRecTrainingArguments):
        raise ValueError(f"`args` is {type(args).__name__}; it must be PredRecTrainingArguments.")
    if eval_dataset is not None and not hasattr(eval_dataset, "__len__"):
        raise ValueError(
            "`eval_dataset` is a stream; it must have a length: keep some rows, as by `list(it.take(n))`."
        )


def collator_for(
    model: PredRecForPreTraining, tokenizer: PreTrainedTokenizerBase | None, seed: int
) -> DataCollatorForPreTraining:
    """Returns a collator with the masks of the paper for what the model trains."""
    config = model.config
    if tokenizer is None:
        raise ValueError("Pass `processing_class`, the tokenizer, or a `data_collator`.")
    if config.padding_is_text or (config.has_jepa_branch and config.jepa_view == "crops"):
        raise ValueError("Pass a `data_collator`: padding that is text needs `max_seq_length`, crops `crop_length`.")
    return DataCollatorForPreTraining(
        tokenizer,
        seed,
        label_view=config.mlm_view,
        num_target_blocks=2 if config.has_jepa_branch else 0,
    )


def check_views(model: PredRecForPreTraining, collator: DataCollatorForPreTraining) -> None:
    """Refuses batches that are made for another objective than the model's, or another vocabulary.

    Raises:
        ValueError: If contexts, targets or labels are not those that the model takes, or token ids may be none of its.
    """
    config = model.config
    if not isinstance(collator, DataCollatorForPreTraining):
        raise ValueError(
            f"`data_collator` is {type(collator).__name__}; it must be a DataCollatorForPreTraining, or left out."
        )
    if collator.padding_is_text != config.padding_is_text:
        raise ValueError(
            f"`padding_is_text` of the collator is {collator.padding_is_text}, but that of the model's configuration "
            f"{config.padding_is_text}: the exported encoder would attend to padding as it was not trained to."
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(collator.tokenizer) > rows:
        raise ValueError(
            f"The tokenizer has {len(collator.tokenizer):,} tokens, but the model has {rows:,}: they do not belong "
            "together."
        )
    if config.objective != "jepa" and collator.label_view != config.mlm_view:
        raise ValueError(f"`label_view` of the collator is {collator.label_view}, but `mlm_view` {config.mlm_view}.")
    if config.objective != "mlm":
        if not collator.num_target_blocks:
            raise ValueError(f"`objective` is {config.objective}: `num_target_blocks` of the collator must not be 0.")
        if (collator.crop_length is not None) != (config.jepa_view == "crops"):
            raise ValueError(f"`jepa_view` is {config.jepa_view}, but `crop_length` {collator.crop_length}.")
