"""The code blocks of a model card. `{directory}` is what they load, `{options}` what loading needs."""

LOAD = """\
from transformers import AutoModel, AutoTokenizer
{importing}
directory = "{directory}"  # the path of this folder
tokenizer = AutoTokenizer.from_pretrained(directory)
"""

REMOTE = "\n# `import predrec` instead of `trust_remote_code=True` works too, where the package is installed.\n"

EMBED = """\
import torch

encoder = AutoModel.from_pretrained(directory{options})
batch = tokenizer(["A sentence.", "Another one."], padding=True, return_tensors="pt")
with torch.no_grad():
    states = encoder(**batch).last_hidden_state
mask = batch["attention_mask"][..., None]
vectors = (states * mask).sum(1) / mask.sum(1)
print(vectors.shape)
"""

SENTENCES = """\
from sentence_transformers import SentenceTransformer

sentences = SentenceTransformer(directory{options})
print(sentences.encode(["A sentence.", "Another one."]).shape)
"""

FILL = """\
from transformers import pipeline

fill = pipeline("fill-mask", model=directory{options})
print(fill(f"This is a {{fill.tokenizer.mask_token}}.")[0]["token_str"])
"""

FINETUNE = """\
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

texts, labels = ["It works.", "It fails."] * 8, [1, 0] * 8  # your data
rows = [{{**tokenizer(text, truncation=True), "labels": label}} for text, label in zip(texts, labels)]
model = AutoModelForSequenceClassification.from_pretrained(directory, num_labels=2{options})
arguments = TrainingArguments(output_dir="finetuned", num_train_epochs=1, save_strategy="no", report_to="none")
Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer).train()
"""

EXAMPLES = (
    ("One vector per text, by mean pooling:", EMBED),
    ("The same with sentence-transformers:", SENTENCES),
    ("Masked tokens:", FILL),
    ("Fine-tuning, here for two classes (there are also heads for tokens, question answering and choices):", FINETUNE),
)


def loading_examples(directory: str, custom: bool) -> str:
    """Renders the blocks, to be run one after the other.

    Args:
        directory (`str`): Folder, or id on the Hub.
        custom (`bool`): Whether the architecture comes with its own code.
    """
    options = ", trust_remote_code=True" if custom else ""
    blocks = [("", LOAD.format(importing=REMOTE if custom else "", directory=directory))]
    blocks += [(title, code.format(options=options)) for title, code in EXAMPLES]
    return "\n".join(f"{title}\n\n```python\n{code}```\n".lstrip() for title, code in blocks)
