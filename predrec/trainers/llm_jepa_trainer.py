"""The Trainer of LLM-JEPA: both losses, a budget in operations, checkpoints that are ordinary language models."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..data_collators.llm_jepa import DataCollatorForLLMJepa
from ..data_collators.view_examples import ViewDataset
from ..modeling.llm_flops import LanguageModelCost, Spending, skips_views
from ..modeling.modeling_llm_jepa import LLMJepaModel
from .ema import EMACallback
from .language_card import write_language_card
from .llm_jepa_args import LLMJepaArguments
from .objective_trainer import ObjectiveTrainer
from .strategies import is_sharded
from .view_geometry import MOST, view_measures

logger = logging.get_logger(__name__)

TARGET_FILE = "target_decoder.safetensors"


class LLMJepaTrainer(ObjectiveTrainer):
    """Trains an [`LLMJepaModel`].

    Besides `ntp_loss` and `jepa_loss`, the log has `flops`, what has been spent so far, and evaluations have the
    geometry of the views for every method: `matched_cosine`, `mismatched_cosine`, `effective_rank`, `retrieval`,
    `collapsed`.

    Args:
        model ([`LLMJepaModel`]): A causal language model with its objective.
        args ([`LLMJepaArguments`]): Arguments.
        data_collator ([`DataCollatorForLLMJepa`]): Makes batches; for training it makes views only where they count.
        train_dataset, eval_dataset ([`ViewDataset`]): Examples.
        kwargs: As for [`ObjectiveTrainer`]. `processing_class`, the tokenizer, is saved with the model.

    Raises:
        ValueError: If model, arguments and data are not for one another: the objective stands in both of the first.
    """

    TERMS = {"ntp_loss": "num_labels", "jepa_loss": "num_pairs"}
    COUNTS = ()

    def __init__(
        self,
        model: LLMJepaModel,
        args: LLMJepaArguments,
        data_collator: DataCollatorForLLMJepa,
        train_dataset: ViewDataset,
        **kwargs,
    ):
        check_together(model, args, train_dataset, kwargs.get("processing_class"))
        self.cost = LanguageModelCost.of(model.causal_lm)
        self.spending = spending_of(self.cost, train_dataset, args)
        if args.max_flops is not None:
            args.max_steps = self.spending.updates_for(args.max_flops)
        super().__init__(model, args, data_collator, train_dataset=train_dataset, **kwargs)
        if is_sharded(self.accelerator):
            raise ValueError("`fsdp` shards are not for LLM-JEPA: use copies (DDP), or LoRA on one GPU.")
        self.example_prompt: str | None = None
        self.answer_shares: dict[str, float] = {}
        if args.method != "llm_jepa" or args.jepa_lambda == 0:
            self.data_collator = data_collator.without_views()

    def own_callbacks(self) -> list[TrainerCallback]:
        """Adds the average, where there is one."""
        averaged = [EMACallback(self.finite_guard)] if self.model.target_decoder is not None else []
        return [*super().own_callbacks(), *averaged]

    # Losses

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """As published, accumulated batches are averaged one by one and then added up; by default, over tokens."""
        samples, rest = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.args.sum_micro_batches and self.args.method != "ntp":
            self._update_counts = None
        return samples, rest

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.model.lambda_share = self.lambda_share()
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def lambda_share(self) -> float:
        """Returns which part of lambda applies: it may warm up."""
        if self.args.jepa_lambda_schedule == "constant" or not self.args.lambda_warmup:
            return 1.0
        return min(1.0, self.state.global_step / max(1, self.state.max_steps) / self.args.lambda_warmup)

    def skips_jepa(self) -> bool:
        """Draws once per update, from seed and update alone, so that no process pays while others skip."""
        applies = self.args.method == "llm_jepa"
        return applies and skips_views(self.args.seed, self.state.global_step, self.args.jepa_dropout)

    def schedule_values(self) -> dict[str, float]:
        """Returns operations spent, the share of updates with views, and lambda where it moves."""
        step = self.state.global_step
        values = {"flops": self.spending.until(step)}
        if self.spending.jepa_dropout and step:
            values["jepa_active"] = self.spending.with_views(step) / step
        if self.args.jepa_lambda_schedule != "constant":
            values["loss_lambda"] = float(self.args.jepa_lambda or 0.0) * self.lambda_share()
        return values

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """With a budget, the rate follows what is spent, so that at equal cost all methods are equally far."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self.args.max_flops is not None and self.args.jepa_dropout:
            lambdas = getattr(scheduler, "lr_lambdas", None)
            if lambdas is None:
                raise ValueError("`lr_scheduler_type`: with `max_flops`, it must be a function of the step.")
            total = self.spending.until(num_training_steps)

            def spent(step: int) -> float:
                return num_training_steps * self.spending.until(min(step, num_training_steps)) / total

            scheduler.lr_lambdas = [_after(spent, rate) for rate in lambdas]
        return scheduler

    # Evaluation

    def more_means(self, means: dict[str, float], totals: Tensor) -> dict[str, float]:
        """Returns the loss of the averaged terms."""
        objective = self.model.objective
        weight = 0.0 if objective.method == "ntp" else objective.jepa_lambda * self.model.lambda_share
        return {"loss": objective.gamma * means["ntp_loss"] + weight * means.get("jepa_loss", 0.0)}

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Adds the geometry of the views to the averaged terms."""
        kept: list[tuple[Tensor, Tensor, Tensor]] = []

        def keep(module: LLMJepaModel, inputs: Any, options: dict[str, Tensor], output) -> None:
            if output.source_states is not None and sum(len(states[0]) for states in kept) < MOST:
                states = output.source_states.float(), output.target_states.float(), options["pair_numbers"]
                kept.append(tuple(value.cpu() for value in states))

        handle = self.model.register_forward_hook(keep, with_kwargs=True)
        try:
            result = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        finally:
            handle.remove()
        # With fewer batches than processes, some have none.
        states = torch.empty(0, self.model.config.get_text_config().hidden_size)
        kept = kept or [(states, states, torch.empty(0, dtype=torch.long))]
        measured = view_measures(
            *self._of_all_processes(*(torch.cat(parts)[:MOST] for parts in zip(*kept, strict=True)))
        )
        result.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in measured.items()})
        if self.args.method == "llm_jepa" and measured.get("collapsed"):
            logger.warning(
                f"Step {self.state.global_step}: views collapse: those of different records have a cosine of "
                f"{measured['mismatched_cosine']:.4f} on average, so that the loss between views says nothing."
            )
        return result

    def _of_all_processes(self, *values: Tensor) -> list[Tensor]:
        if self.args.world_size == 1:
            return list(values)
        parts: list[Any] = [None] * self.args.world_size
        torch.distributed.all_gather_object(parts, values)
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    # Checkpoints

    def write_weights(self, directory: str) -> None:
        """Writes the language model, or its adapters, in their own format, and the averaged copy beside it."""
        if not self.args.should_save:
            return
        save_language_model(self.model.causal_lm, directory)
        self.processing_class.save_pretrained(directory)
        torch.save(self.args, Path(directory) / "training_args.bin")
        if self.model.target_decoder is not None:
            state = {name: value.contiguous() for name, value in self.model.target_decoder.state_dict().items()}
            save_file(state, Path(directory) / TARGET_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """Reads what [`LLMJepaTrainer.write_weights`] wrote."""
        load_language_model(self.model.causal_lm, resume_from_checkpoint)
        if self.model.target_decoder is not None:
            self.model.target_decoder.load_state_dict(load_file(Path(resume_from_checkpoint) / TARGET_FILE))
        self.take_numbers(resume_from_checkpoint)

    def export(self, directory: Path, weights: dict | None) -> None:
        """Writes the trained language model, or its adapters."""
        save_language_model(self.model.causal_lm, str(directory))
        self.processing_class.save_pretrained(directory)

    def create_model_card(self, *args, **kwargs) -> None:
        """Writes the model card of the run, with `example_prompt` and `answer_shares` where set, and its curves."""
        if self.args.should_save:
            write_language_card(self)


def check_together(model: Any, args: Any, dataset: Any, tokenizer: Any) -> None:
    """Raises `ValueError` if what the Trainer is given does not go together."""
    kinds = ((model, "model", LLMJepaModel), (args, "args", LLMJepaArguments), (dataset, "train_dataset", ViewDataset))
    for value, name, kind in kinds:
        if not isinstance(value, kind):
            raise ValueError(f"`{name}` is {type(value).__name__}; it must be {kind.__name__}.")
    if tokenizer is None:
        raise ValueError("`processing_class` is missing: give the tokenizer, which is saved with the model.")
    asked = args.objective()
    for part in fields(asked):
        own, other = getattr(model.objective, part.name), getattr(asked, part.name)
        if part.name != "separation" and own != other:
            raise ValueError(
                f"`{part.name}` is {own!r} in the model's objective, {other!r} in the arguments: build it by "
                "`LLMJepaModel(causal_lm, args.objective())`."
            )
    known = len(getattr(model.config, "predictor_token_ids", None) or [])
    if args.method == "llm_jepa" and known != args.num_predictor_tokens:
        raise ValueError(
            f"`num_predictor_tokens` is {args.num_predictor_tokens}, but the model has {known}: see "
            "`add_predictor_tokens`."
        )


def _after(first, second):
    return lambda step: second(first(step))


def save_language_model(model: Any, directory: str) -> None:
    """Saves a model as its own class does; adapters without a copy of the embeddings."""
    options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(directory, **options)


def load_language_model(model: Any, directory: str) -> None:
    """Loads saved weights, or adapters, into a model of the same kind, tensor by tensor."""
    if hasattr(model, "peft_config"):
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(directory, device="cpu"))
        return
    own, saved = model.state_dict(), _saved_weights(directory)
    tied = {own[name].data_ptr() for name in own.keys() & saved.keys()}
    if saved.keys() <= own.keys() and all(value.data_ptr() in tied for value in own.values()):
        for name, path in saved.items():
            with safe_open(path, "pt") as weights:
                own[name].copy_(weights.get_tensor(name))
    else:  # Of some architectures, as of mixtures of experts, transformers saves weights cut otherwise.
        model.load_state_dict(type(model).from_pretrained(directory, dtype=model.dtype).state_dict())


def _saved_weights(directory: str) -> dict[str, Path]:
    """Returns in which file each weight is: whatever saves a model may spread it over several."""
    found = {}
    for path in Path(directory).glob("model*.safetensors"):
        with safe_open(path, "pt") as weights:
            found |= dict.fromkeys(weights.keys(), path)
    return found


def spending_of(cost: LanguageModelCost, dataset: ViewDataset, args: LLMJepaArguments) -> Spending:
    """Returns what an update costs on average over the data, by all processes together."""
    records = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    generated = cost.flops([len(example.input_ids) for example in dataset.examples], True)
    views = 0
    if args.method == "llm_jepa" and args.jepa_lambda:
        lengths = [len(ids) for example in dataset.examples for ids in (example.source_ids, example.target_ids)]
        views = cost.flops(lengths, False)
        if args.target_grad == "ema":
            views += cost.forward_flops(lengths)
    share = records / len(dataset)
    return Spending(generated * share, views * share, args.jepa_dropout if views else 0.0, args.seed)
