"""The model card of a checkpoint that was converted from the original author's code."""

from collections.abc import Sequence

from huggingface_hub import ModelCardData

from ..trainers.card_parts import block, compose, table
from ..trainers.model_card import CITATION, OBJECTIVES

LOAD = """\
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

# `import predrec` instead of `trust_remote_code=True` works too, where the package is installed.
directory = "{directory}"  # the path of this folder
tokenizer = AutoTokenizer.from_pretrained({tokenizer})
encoder = AutoModel.from_pretrained(directory, trust_remote_code=True)
masked_lm = AutoModelForMaskedLM.from_pretrained(directory, trust_remote_code=True)

# One length for all texts, see below.
batch = tokenizer(["A sentence.", "Another one."], padding="max_length", max_length={length}, return_tensors="pt")
with torch.no_grad():
    states = encoder(**batch).last_hidden_state
mask = batch["attention_mask"][..., None]
vectors = (states * mask).sum(1) / mask.sum(1)
print(vectors.shape)
"""

PRETRAINING = """\
`pretraining` is the whole pre-training model: context encoder, predictor, target encoder, token regressor and loss
weight. It needs the package:

```python
from predrec.modeling import PredRecForPreTraining

model = PredRecForPreTraining.from_pretrained(directory, subfolder="pretraining")
```
"""

PADDING = """\
The original code has no attention mask: real tokens attend to padding. `attend_to_padding` is true in `config.json`,
so that this encoder does the same and ignores `attention_mask`. A text's states therefore depend on how far it is
padded: pad all texts to one length to compare their vectors, and to the length used there to compare results.
"""

FURTHER = """\
To train further, set `attend_to_padding` to false in `config.json`{also}.
Padding is then masked, and the states of padded texts are no longer those of the original code.
"""


def render_reference_card(
    directory: str, training_mode: str, length: int, facts: Sequence[tuple[str, str]], has_tokenizer: bool
) -> str:
    """Renders the card.

    Args:
        directory (`str`): Name of the folder; also what the example loads.
        training_mode (`"hybrid"` or `"mlm"`): What was trained.
        length (`int`): Tokens that the example pads to.
        facts (`Sequence[tuple[str, str]]`): Where it comes from, what was found and decided; rows of a table.
        has_tokenizer (`bool`): Whether the tokenizer is in the folder.
    """
    hybrid = training_mode == "hybrid"
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=["predrec", "masked-lm", training_mode, *(["jepa"] if hybrid else [])],
    )
    tokenizer = "directory" if has_tokenizer else '"google-bert/bert-base-uncased"'
    absent = "The tokenizer is not in this folder; the paper's is that of google-bert/bert-base-uncased.\n"
    also = "; that of `pretraining` has it so already" if hybrid else ""
    return compose(
        data,
        directory,
        f"A text encoder pre-trained with {OBJECTIVES[training_mode]}, by the original author's code of "
        "[Predict and Reconstruct](https://arxiv.org/abs/2606.05173). predrec converted it and trained nothing.\n",
        "## Load it\n",
        block("python", LOAD.format(directory=directory, tokenizer=tokenizer, length=length)),
        "" if has_tokenizer else absent,
        PRETRAINING if hybrid else "",
        "## Padding\n",
        PADDING,
        FURTHER.format(also=also),
        "## Where it comes from\n",
        table(facts),
        "The licence is that of the original weights; none was found in the file.\n",
        "## Citation\n",
        "Cite the original work:\n\n" + block("bibtex", CITATION),
    )
