"""What is due at the end of an epoch, or of the run, happens in its last update: there a checkpoint can be exact."""

from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy


class EpochEndCallback(TrainerCallback):
    """Logs, evaluates and saves after the last update of an epoch, and evaluates after that of the run.

    The stock Trainer does so when the loop leaves an epoch: once more after a checkpoint of its last update, so that
    a run resumed there would miss it, and in the middle of an epoch when a run is interrupted. So every run ends with
    its held-out losses, and one that was stopped has no line in its log that another does not have.
    """

    def on_step_end(self, args, state, control, **kwargs):
        last = state.global_step >= state.max_steps
        if last and args.eval_strategy != IntervalStrategy.NO:
            control.should_evaluate = True
        if last or state.epoch == int(state.epoch):
            if args.logging_strategy == IntervalStrategy.EPOCH:
                control.should_log = True
            if args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= state.epoch:
                control.should_evaluate = True
            if args.save_strategy == SaveStrategy.EPOCH:
                control.should_save = True

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_log = control.should_evaluate = control.should_save = False
