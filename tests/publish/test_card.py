"""What the card of an export says."""

import re

import pytest
from huggingface_hub import ModelCard

from predrec.publish.card import render_card, training_sections
from predrec.publish.weights import Source

from ..modeling.tiny import pretraining_model

RUN_CARD = """---
library_name: transformers
---
# run

## Load it

Code.

## Training

| steps | 4 |

![Training curves](training_curves.png)

## Licence

None was given.
"""


def source(model_type="predrec", **fields) -> Source:
    return Source(pretraining_model(model_type).masked_lm, None, "the online encoder of checkpoint-4", **fields)


@pytest.mark.parametrize(
    ("format", "pipeline"),
    [
        ("transformers", "fill-mask"),
        ("sentence-transformers", "sentence-similarity"),
        ("onnx", "feature-extraction"),
    ],
)
def test_card_has_the_metadata_of_its_format(format, pipeline):
    card = ModelCard(render_card("tiny", source(), format, "mean", []))
    assert (card.data.library_name, card.data.pipeline_tag) == (format, pipeline)
    assert "predrec" in card.data.tags


def test_card_says_which_weights_and_what_of_them(tmp_path):
    text = render_card("tiny", source(notes=["The head is old."]), "onnx", None, ["Texts are cut at 20 tokens."])
    assert "This is the online encoder of checkpoint-4, exported for onnx by predrec." in text
    assert "Texts are cut at 20 tokens. The head is old." in text


@pytest.mark.parametrize("format", ["transformers", "sentence-transformers"])
@pytest.mark.parametrize(("model_type", "custom"), [("predrec", True), ("bert", False)])
def test_card_asks_for_remote_code_where_it_is_needed(format, model_type, custom):
    text = render_card("tiny", source(model_type), format, "mean", [])
    assert ("trust_remote_code=True)" in text) is custom


@pytest.mark.parametrize(("pooling", "output"), [(None, "last_hidden_state"), ("cls", "sentence_embedding")])
def test_card_of_a_graph_shows_its_output(pooling, output):
    assert f'session.run(["{output}"]' in render_card("tiny", source(), "onnx", pooling, [])


@pytest.mark.parametrize("format", ["transformers", "sentence-transformers", "onnx"])
def test_examples_of_the_card_load_its_own_folder(format):
    text = render_card("tiny", source(), format, "mean", [])
    assert re.findall(r'^directory = "(.*)"', text, flags=re.MULTILINE) == ["tiny"]


def test_card_takes_the_training_from_the_card_of_the_run(tmp_path):
    (tmp_path / "README.md").write_text(RUN_CARD)
    text = training_sections(tmp_path / "README.md")
    assert text.startswith("## Training\n\n| steps | 4 |") and text.endswith("## Licence\n\nNone was given.\n")
    assert "training_curves" not in text and "Load it" not in text


def test_card_without_a_run_has_no_training():
    text = render_card("tiny", source(), "onnx", None, [])
    assert "## Training" not in text and "## Licence" in text
