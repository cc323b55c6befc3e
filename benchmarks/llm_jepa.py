"""What LLM-JEPA costs beside next-token training, interleaved: `python benchmarks/llm_jepa.py FILE`.

FILE has chat records, such as NL-RX-SYNTH; generated pairs are used without it.
"""

import statistics
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from predrec.data_collators.chat_format import find_format
from predrec.data_collators.chat_tokenizer import train_chat_tokenizer
from predrec.data_collators.llm_jepa import DataCollatorForLLMJepa
from predrec.data_collators.regex_grammar import regex_pairs
from predrec.data_collators.two_views import TwoViews, load_records
from predrec.data_collators.view_examples import RecordEncoder, ViewDataset, encode_records
from predrec.modeling.llm_flops import LanguageModelCost
from predrec.modeling.modeling_llm_jepa import LLMJepaModel, LLMJepaObjective
from predrec.modeling.predictor_tokens import add_predictor_tokens

SIZES = {"192 x 4": (192, 4), "512 x 8": (512, 8)}
BATCH, ROUNDS = 32, 6


def measure(records: list[TwoViews], width: int, layers: int) -> None:
    """Prints ratios of time and of operations, medians over rounds."""
    texts = [text for r in records for text in (r.system or "", r.text, r.code)]
    tokenizer = train_chat_tokenizer(texts, 512, 256)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    encoder = RecordEncoder(tokenizer, find_format(tokenizer), add_predictor_tokens(model, tokenizer, 1))
    dataset = ViewDataset(encode_records(records, encoder)[0])
    jepa = LLMJepaModel(model, LLMJepaObjective())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    collators = {"packed": "packed", "rows": "rows"}

    def update(layout: str | None, number: int) -> float:
        collator = DataCollatorForLLMJepa(tokenizer.pad_token_id, layout is not None, layout or "packed")
        batch = collator([dataset[(number * BATCH + i) % len(dataset)] for i in range(BATCH)])
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = jepa(**batch, skip_jepa=layout is None).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    times: dict[str | None, list[float]] = {layout: [] for layout in (None, *collators)}
    for number in range(ROUNDS + 1):
        for layout, kept in times.items():
            seconds = update(layout, number)
            if number:
                kept.append(seconds)
    cost = LanguageModelCost.of(model)
    generated = cost.flops([len(e.input_ids) for e in dataset.examples], True)
    views = cost.flops([len(ids) for e in dataset.examples for ids in (e.source_ids, e.target_ids)], False)
    ratio = {
        layout: statistics.median(a / b for a, b in zip(times[layout], times[None], strict=True))
        for layout in collators
    }
    print(
        f"{width} x {layers}: next tokens {statistics.median(times[None]):.3f} s an update; LLM-JEPA packed "
        f"{ratio['packed']:.2f} times, rows {ratio['rows']:.2f} times, by arithmetic {1 + views / generated:.2f}; "
        f"with three quarters of the passes left out {1 + (ratio['packed'] - 1) / 4:.2f}"
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    found = load_records(sys.argv[1]) if len(sys.argv) > 1 else None
    pairs = found or [TwoViews(t, c, "Write the regular expression.") for t, c in regex_pairs(2000, 0)]
    print(f"{len(pairs)} records, batches of {BATCH}, {torch.get_num_threads()} threads, bf16")
    for size in SIZES.values():
        measure(pairs[:2000], *size)
