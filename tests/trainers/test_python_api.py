"""The Trainer in the hands of somebody who writes Python: plain datasets, defaults, and what cannot work."""

import json
import math

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    TrainerCallback,
    TrainingArguments,
)

from predrec import (
    EMACallback,
    PredRecForMaskedLM,
    PredRecForPreTraining,
    PredRecForTokenClassification,
    PredRecPreTrainingConfig,
    PredRecTrainer,
)
from predrec.data_collators import NumberedRows
from predrec.errors import UserError
from predrec.modeling import AUTO_CLASSES, AUTO_MAP
from predrec.trainers.finite import NonFiniteLossError
from tests import training


@pytest.fixture(scope="module")
def tokenized():
    """As everybody tokenizes, special tokens and masks included."""
    texts = Dataset.from_dict({"text": list(training.corpus()[:48])})
    options = {"truncation": True, "max_length": training.LENGTH}
    return texts.map(lambda row: training.tokenizer()(row["text"], **options), remove_columns="text")


def trainer_of(folder, rows, model=None, collator=None, **options):
    evaluation = options.pop("eval_dataset", None)
    arguments = training.training_arguments(folder, **options)
    given = {"train_dataset": rows, "eval_dataset": evaluation, "processing_class": training.tokenizer()}
    return PredRecTrainer(model or training.model(), arguments, collator, **given)


def seen_by(trainer):
    """Trains, and returns the batches that the model saw."""
    seen, forward = [], trainer.model.forward

    def keep(**batch):
        seen.append(batch)
        return forward(**batch)

    trainer.model.forward = keep
    trainer.train()
    return seen


def test_a_tokenized_dataset_is_trained_on_with_new_masks_in_every_epoch(tmp_path, tokenized):
    trainer = trainer_of(tmp_path, tokenized, max_steps=12, eval_dataset=tokenized.select(range(8)))
    masks: dict[int, set] = {}
    for batch in seen_by(trainer):
        for number, row in zip(batch["example_ids"].tolist(), batch["labels"].tolist(), strict=True):
            masks.setdefault(number, set()).add(tuple(row))
    assert set(masks) == set(range(48)) and all(len(found) == 2 for found in masks.values())
    assert {"eval_mlm_loss", "eval_jepa_margin"} <= set(trainer.evaluate())


def test_an_epoch_that_the_rows_name_is_that_of_the_run():
    rows = NumberedRows([{"input_ids": [2, 5, 3], "epoch": 0, "example_ids": 7}])
    rows.set_epoch(4)
    assert rows[0] == {"input_ids": [2, 5, 3], "epoch": 4, "example_ids": 7} and len(rows) == 1


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_of_a_tokenized_dataset_is_no_text(side):
    ids, pad = [2, 9, 8, 7, 3], training.tokenizer().pad_token_id
    pads, ones, zeros = [pad] * 20, [1] * 5, [0] * 20
    padded = {"input_ids": ids + pads, "attention_mask": ones + zeros}
    if side == "left":
        padded = {"input_ids": pads + ids, "attention_mask": zeros + ones}
    about = {"example_ids": 0, "epoch": 0}
    batches = [training.collator()([feature | about]) for feature in ({"input_ids": ids}, padded)]
    assert batches[0].keys() == batches[1].keys()
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])


@pytest.mark.parametrize("mask", [[1, 0, 1], [0, 0, 0], [1, 1]])
def test_a_mask_that_leaves_no_piece_of_text_is_refused(mask):
    feature = {"input_ids": [2, 5, 3], "attention_mask": mask, "example_ids": 3, "epoch": 0}
    with pytest.raises(ValueError, match="`attention_mask` of example 3"):
        training.collator()([feature])


def test_the_default_masks_are_those_of_the_run_s_seed(tmp_path, tokenized):
    seeds = [
        trainer_of(tmp_path / str(number), tokenized, **options).data_collator.seed
        for number, options in enumerate([{"seed": 5}, {"seed": 5, "data_seed": 6}])
    ]
    assert seeds == [5, 6]
    mlm = trainer_of(tmp_path / "mlm", tokenized, training.model("mlm")).data_collator
    assert mlm.num_target_blocks == 0


def test_rows_are_not_padded_beyond_the_positions_of_the_encoder(tmp_path, tokenized):
    model = training.model(encoder=training.encoder_config(max_position_embeddings=training.LENGTH))
    assert all(
        batch["input_ids"].shape[1] <= training.LENGTH for batch in seen_by(trainer_of(tmp_path, tokenized, model))
    )


def test_continuing_a_masked_lm(tmp_path, tokenized):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    bert = BertForMaskedLM(BertConfig(vocab_size=len(training.tokenizer()), max_position_embeddings=64, **sizes))
    bert.save_pretrained(tmp_path / "bert")
    bert.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    for source in (str(tmp_path / "bert"), bert, str(tmp_path / "half")):
        model = PredRecForPreTraining.from_masked_lm(source, predictor_num_hidden_layers=1)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        for name, weight in bert.state_dict().items():
            torch.testing.assert_close(model.masked_lm.state_dict()[name], weight.float(), rtol=1e-2, atol=1e-2)
    trainer = trainer_of(tmp_path / "run", tokenized, model)
    trainer.train()
    trainer.save_model()
    exported = AutoModel.from_pretrained(tmp_path / "run")
    assert exported.config.model_type == "bert"


def test_a_checkpoint_of_an_encoder_is_not_taken_for_one_of_the_whole(tmp_path):
    training.model().masked_lm.save_pretrained(tmp_path)
    for kind in (PredRecForPreTraining, PredRecPreTrainingConfig):
        with pytest.raises(ValueError, match="This is a predrec, not a predrec_pretraining: wrap a masked LM by"):
            kind.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", [PredRecForMaskedLM, PredRecForTokenClassification])
def test_what_is_saved_by_itself_loads_as_everything_without_the_package(tmp_path, kind):
    kind(training.encoder_config()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP and set(AUTO_MAP) == {
        "AutoConfig",
        *(auto.__name__ for auto in AUTO_CLASSES),
    }
    names = {name.partition(".")[0] for name in AUTO_MAP.values()}
    assert all((tmp_path / f"{name}.py").is_file() for name in names)


def test_a_misspelt_field_is_no_field():
    with pytest.raises(ValueError, match="`jepa_dropuot` is no field of PredRecPreTrainingConfig; did you mean `jepa"):
        PredRecPreTrainingConfig(jepa_dropuot=0.5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "bert"}, "`model` is BertForMaskedLM; it must be a PredRecForPreTraining"),
        ({"args": "stock"}, "`args` is TrainingArguments; it must be PredRecTrainingArguments"),
        ({"data_collator": "stock"}, "`data_collator` is DataCollatorForLanguageModeling"),
        ({"processing_class": None}, "Pass `processing_class`"),
        (
            {"model": None, "model_init": training.model},
            "nor is `hyperparameter_search`, which needs it: pass `model`",
        ),
        ({"compute_loss_func": len}, "`compute_loss_func` is not for this trainer"),
        ({"eval_dataset": iter([])}, "`eval_dataset` is a stream"),
        ({"model": "small"}, "tokens, but the model has 60: they do not belong together"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_go_together_is_refused(tmp_path, tokenized, given, message):
    kinds = {
        "bert": BertForMaskedLM(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)),
        "small": training.model(encoder=training.encoder_config(vocab_size=60)),
        "stock": TrainingArguments(tmp_path, use_cpu=True, report_to=[]),
    }
    if "data_collator" in given:
        given = {"data_collator": DataCollatorForLanguageModeling(training.tokenizer())}
    whole = {"model": training.model(), "args": training.training_arguments(tmp_path), "train_dataset": tokenized}
    whole |= {"processing_class": training.tokenizer()}
    whole |= {name: kinds.get(value, value) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(ValueError, match=message):
        PredRecTrainer(**whole)


def test_batches_of_something_else_are_named():
    ids = torch.ones(2, 8, dtype=torch.long)
    with pytest.raises(ValueError, match="`labels` is missing from the batch: batches of objective hybrid come from"):
        training.model()(input_ids=ids)
    with pytest.raises(ValueError, match="`original_input_ids` is missing"):
        training.model()(input_ids=ids, labels=ids)
    with pytest.raises(ValueError, match="Rows of 600 tokens: the encoder has 512 positions"):
        training.model("mlm")(input_ids=ids[:, :1].expand(2, 600), labels=ids)


def test_a_checkpoint_is_checked_before_the_run_goes_on(tmp_path, tokenized):
    options = {"save_strategy": "steps", "save_steps": 3}
    trainer_of(tmp_path, tokenized, **options).train()
    other = training.model(encoder=training.encoder_config(intermediate_size=48))
    with pytest.raises(UserError, match="it is no checkpoint of this model"):
        trainer_of(tmp_path, tokenized, other, **options).train(resume_from_checkpoint=True)
    with pytest.raises(UserError, match="there is no checkpoint to go on from"):
        trainer_of(tmp_path / "empty", tokenized).train(resume_from_checkpoint=True)
    newest = tmp_path / "checkpoint-6" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"model\.safetensors is not as it was written"):
        trainer_of(tmp_path, tokenized, **options).train(resume_from_checkpoint=str(newest.parent))
    again = trainer_of(tmp_path, tokenized, **options)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 6 and (tmp_path / "damaged-checkpoint-6").is_dir()


def test_other_data_are_refused(tmp_path, tokenized):
    trainer = trainer_of(tmp_path, tokenized, save_strategy="steps", save_steps=3)
    trainer.data_fingerprint = "first"
    trainer.train()
    again = trainer_of(tmp_path, tokenized)
    again.data_fingerprint = "second"
    with pytest.raises(UserError, match="the training data is not what checkpoint-6 was trained on"):
        again.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("given", [{"collapse_action": "Stop"}, {"non_finite": "Skip"}])
def test_choices_are_checked_without_a_command_line(tmp_path, given):
    [(name, value)] = given.items()
    with pytest.raises(UserError, match=f"`{name}` is '{value}'; it must be one of"):
        training.training_arguments(tmp_path, **given)


class OwnLoss(PredRecTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs).mlm_loss.detach() * 0 + sum(p.sum() for p in model.parameters() if p.requires_grad)


def test_a_loss_of_ones_own_is_in_the_log(tmp_path, tokenized):
    arguments = training.training_arguments(tmp_path, max_steps=2)
    trainer = OwnLoss(training.model(), arguments, train_dataset=tokenized, processing_class=training.tokenizer())
    trainer.train()
    assert all(entry["loss"] == entry["loss"] for entry in trainer.state.log_history if "loss" in entry)


def test_a_frozen_part_stays_frozen():
    model = training.model("jepa")
    model.encoder.embeddings.requires_grad_(False)
    model.train()
    assert not any(parameter.requires_grad for parameter in model.encoder.embeddings.parameters())


def test_a_callback_that_the_trainer_adds_is_not_added_twice(tmp_path, tokenized):
    """The average would move twice."""
    arguments, given = (
        training.training_arguments(tmp_path),
        {"train_dataset": tokenized, "callbacks": [EMACallback()]},
    )
    with pytest.raises(ValueError, match="the trainer adds EMACallback by itself"):
        PredRecTrainer(training.model(), arguments, processing_class=training.tokenizer(), **given)


def test_a_card_without_a_command_shows_its_curves_and_no_empty_recipe(tmp_path, tokenized):
    trainer = trainer_of(tmp_path, tokenized)
    trainer.train()
    trainer.create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert (
        "](training_curves.png)" in text and (tmp_path / "training_curves.png").is_file() and "## Recipe" not in text
    )


def test_arguments_are_in_the_order_of_the_stock_trainer(tmp_path, tokenized):
    args = training.training_arguments(tmp_path)
    evaluation = tokenized.select(range(8))
    trainer = PredRecTrainer(training.model(), args, training.collator(), tokenized, evaluation, training.tokenizer())
    assert trainer.train_dataset.rows is tokenized and trainer.eval_dataset.rows is evaluation
    assert trainer.recipe is None and trainer.processing_class is training.tokenizer()


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("jepa", {"metric_for_best_model": "eval_mlm_accuracy"}, "which `objective=jepa` does not train"),
        ("jepa", {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}, "needs a masked-LM loss"),
        ("jepa", {"collapse_action": "switch", "eval_strategy": "epoch"}, "needs `objective=hybrid`"),
        ("mlm", {"metric_for_best_model": "eval_jepa_loss"}, "which `objective=mlm` does not train"),
        ("hybrid", {"collapse_action": "stop"}, "`collapse_action=stop` needs evaluations"),
        (
            "hybrid",
            {"collapse_action": "switch", "eval_strategy": "epoch", "metric_for_best_model": "eval_jepa_loss"},
            "which `collapse_action=switch` may end",
        ),
    ],
)
def test_what_evaluations_do_not_decide_is_refused_without_a_command_line(tmp_path, objective, options, message):
    arguments = training.training_arguments(tmp_path, **options)
    with pytest.raises(UserError, match=message):
        PredRecTrainer(training.model(objective), arguments, training.collator(objective))


def test_prediction_alone_ends_with_an_evaluation(tmp_path, tokenized):
    """No checkpoint is the best then, as none has a masked-LM loss."""
    options = {"eval_strategy": "steps", "eval_steps": 3, "eval_dataset": tokenized.select(range(8))}
    trainer = trainer_of(tmp_path, tokenized, training.model("jepa"), **options)
    trainer.train()
    assert len(training.logged(trainer, "eval_jepa_loss")) == 2 and trainer.state.best_global_step is None


class AtEpochEnds(TrainerCallback):
    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_evaluate = True


def test_what_callbacks_ask_for_at_the_end_of_an_epoch_is_done(tmp_path, tokenized):
    given = {"train_dataset": tokenized, "eval_dataset": tokenized.select(range(8))}
    arguments = training.training_arguments(tmp_path, max_steps=-1, num_train_epochs=2)
    whole = {"processing_class": training.tokenizer(), "callbacks": [AtEpochEnds()]}
    trainer = PredRecTrainer(training.model("mlm"), arguments, **given, **whole)
    trainer.train()
    evaluated = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert evaluated == [6, 12]


def test_training_again_forgets_what_went_wrong(tmp_path, tokenized):
    """As in a notebook, with another rate."""
    trainer = trainer_of(tmp_path, tokenized, max_steps=2)
    good = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with torch.no_grad():
        trainer.model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(NonFiniteLossError):
        trainer.train()
    trainer.model.load_state_dict(good)
    trainer.optimizer = None
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)


def test_rows_are_grouped_by_the_column_of_their_lengths(tmp_path, tokenized):
    lengths = [1 if number % 2 else 1000 for number in range(len(tokenized))]
    arguments = training.training_arguments(tmp_path, train_sampling_strategy="group_by_length")
    rows = tokenized.add_column("length", lengths)
    trainer = PredRecTrainer(training.model(), arguments, train_dataset=rows, processing_class=training.tokenizer())
    assert trainer._get_train_sampler().lengths == lengths
