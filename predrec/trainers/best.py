"""What evaluations decide, and what they need for it: the best checkpoint, and what a collapse leads to."""

from copy import copy
from typing import Any

from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType

from ..errors import UserError
from .training_args import PredRecTrainingArguments

NEEDING_BEST = (("save_strategy", SaveStrategy.BEST), ("lr_scheduler_type", SchedulerType.REDUCE_ON_PLATEAU))
"""Arguments, and values of them, that go by the metric of the best checkpoint."""


def check_evaluations(config: Any, args: PredRecTrainingArguments) -> PredRecTrainingArguments:
    """Refuses to choose checkpoints by what is not trained, and actions that nothing would lead to.

    With `objective=jepa` no checkpoint is the best unless another metric than the default is asked for: the head for
    masked tokens is untrained, and the model's own loss is not comparable over time.

    Args:
        config ([`PredRecPreTrainingConfig`] or [`ModelArguments`]): Of the model; its `objective`.
        args ([`PredRecTrainingArguments`]): Left as they are.

    Returns:
        [`PredRecTrainingArguments`]: The same, or a copy without a metric, where there is none.

    Raises:
        UserError: Naming the argument.
    """
    if args.collapse_action != "warn" and args.eval_strategy == IntervalStrategy.NO:
        raise UserError(
            f"`collapse_action={args.collapse_action}` needs evaluations: set `eval_strategy` to steps or epoch."
        )
    metric = args.metric_for_best_model or ""
    if args.collapse_action == "switch":
        if config.objective != "hybrid":
            raise UserError("`collapse_action=switch` needs `objective=hybrid`: there is no other loss to go on with.")
        if metric == "eval_jepa_loss":
            raise UserError("`metric_for_best_model` is eval_jepa_loss, which `collapse_action=switch` may end.")
    if config.objective == "mlm" and metric == "eval_jepa_loss":
        raise UserError("`metric_for_best_model` is eval_jepa_loss, which `objective=mlm` does not train.")
    if config.objective != "jepa" or metric in ("eval_jepa_loss", "eval_loss"):
        return args
    if metric not in ("", PredRecTrainingArguments.metric_for_best_model):
        raise UserError(f"`metric_for_best_model` is {metric}, which `objective=jepa` does not train.")
    for name, needing in NEEDING_BEST:
        if getattr(args, name) == needing:
            raise UserError(
                f"`{name}={needing.value}` needs a masked-LM loss, which `objective=jepa` does not train: add "
                "`--metric_for_best_model eval_jepa_loss`."
            )
    args = copy(args)
    args.metric_for_best_model = None
    return args
