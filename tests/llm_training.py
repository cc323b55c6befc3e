"""Tiny LLM-JEPA runs for tests."""

from predrec.data_collators.chat_format import find_format
from predrec.data_collators.llm_jepa import DataCollatorForLLMJepa
from predrec.data_collators.two_views import TwoViews
from predrec.data_collators.view_examples import RecordEncoder, ViewDataset, encode_records
from predrec.modeling.modeling_llm_jepa import LLMJepaModel
from predrec.modeling.predictor_tokens import add_predictor_tokens
from predrec.trainers.llm_jepa_args import LLMJepaArguments
from predrec.trainers.llm_jepa_trainer import LLMJepaTrainer

from . import causal

WORDS = ("cat", "tree", "99", "x", "dog", "digit", "vowel", "line", "end", "start", "a b", "zero")
RECORDS = [*causal.RECORDS, *(TwoViews(f"lines with {w}", f".*{w}.*", "Write a regex.") for w in WORDS)]
"""Sixteen records."""


def trainer(folder, adapt=None, records=None, **arguments) -> LLMJepaTrainer:
    """Returns a trainer; `adapt` may put adapters on the model."""
    defaults = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 3,
    }
    args = LLMJepaArguments(output_dir=str(folder), **{**defaults, **arguments})
    tokenizer, model = causal.tokenizer("qwen"), causal.model()
    count = args.num_predictor_tokens if args.method == "llm_jepa" else 0
    encoder = RecordEncoder(tokenizer, find_format(tokenizer), add_predictor_tokens(model, tokenizer, count))
    dataset = ViewDataset(encode_records(records or RECORDS, encoder)[0])
    model = LLMJepaModel(adapt(model) if adapt else model, args.objective())
    return LLMJepaTrainer(
        model,
        args,
        DataCollatorForLLMJepa(tokenizer.pad_token_id),
        dataset,
        eval_dataset=dataset,
        processing_class=tokenizer,
    )
