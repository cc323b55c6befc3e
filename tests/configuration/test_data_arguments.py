import pytest

from predrec.configuration import DataArguments


def test_data_arguments_defaults_are_valid():
    assert DataArguments().max_seq_length == 512


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mlm_probability": -0.1}, r"`mlm_probability` is -0.1; it must be above 0 and at most 1"),
        ({"mlm_probability": 1.1}, r"`mlm_probability` is 1.1; it must be above 0 and at most 1"),
        ({"mlm_probability": float("nan")}, r"`mlm_probability` is nan; it must be above 0 and at most 1"),
        ({"mlm_probability": 0.0}, r"`mlm_probability` is 0.0; it must be above 0 and at most 1"),
        ({"mask_replace_prob": -0.1}, r"`mask_replace_prob` is -0.1; it must be in \[0, 1\]"),
        ({"mask_replace_prob": 1.1}, r"`mask_replace_prob` is 1.1; it must be in \[0, 1\]"),
        ({"random_replace_prob": -0.1}, r"`random_replace_prob` is -0.1; it must be in \[0, 1\]"),
        ({"random_replace_prob": 1.1}, r"`random_replace_prob` is 1.1; it must be in \[0, 1\]"),
        (
            {"mask_replace_prob": 0.8, "random_replace_prob": 0.3},
            r"`mask_replace_prob` \(0.8\) and `random_replace_prob` \(0.3\) add up to more than 1",
        ),
        ({"validation_share": 0.0}, r"`validation_share` is 0.0; it must be strictly between 0 and 1"),
        ({"validation_share": 1.0}, r"`validation_share` is 1.0; it must be strictly between 0 and 1"),
        ({"max_validation_documents": 0}, r"`max_validation_documents` is 0; it must be at least 1"),
        ({"num_target_blocks": 0}, r"`num_target_blocks` is 0; it must be at least 1"),
        ({"num_mask_sets": 0}, r"`num_mask_sets` is 0; it must be at least 1"),
        ({"isolate_documents": True, "packing": False}, r"`isolate_documents` is about packed rows"),
        (
            {"isolate_documents": True, "streaming": True, "train_file": ["a.txt"]},
            r"`isolate_documents` needs to know",
        ),
        ({"min_context_tokens": 0}, r"`min_context_tokens` is 0; it must be at least 1"),
        ({"max_seq_length": 15}, r"`max_seq_length` is 15; it must be at least 16"),
        ({"vocab_size": 500, "tokenizer_name": "name"}, r"`vocab_size` sizes a trained tokenizer; `tokenizer_name`"),
        ({"train_tokenizer": True, "tokenizer_name": "name"}, r"`train_tokenizer` and `tokenizer_name` exclude each"),
        ({"train_tokenizer": True, "vocab_size": 99}, r"`vocab_size` is 99; it must be at least 100"),
        ({"dataset_name": "name", "train_file": ["a.txt"]}, r"`dataset_name` and `train_file` are both given"),
        ({"dataset_config_name": "en"}, r"`dataset_config_name` is given without `dataset_name`"),
        ({"streaming": True}, r"`streaming` needs `train_file` or `dataset_name`"),
        (
            {"streaming": True, "train_file": ["a.txt"], "train_tokenizer": True},
            r"`train_tokenizer` reads the corpus twice; with `streaming` give `tokenizer_name`",
        ),
        (
            {"streaming": True, "train_file": ["a.txt"], "validation_share": 0.2},
            r"`validation_share` is not for `streaming`, which holds out the first 500 documents",
        ),
        ({"context_scale": [0.5]}, r"`context_scale` is \[0.5\]; it must be two shares LO and HI with 0 <"),
        ({"context_scale": [0.5, 0.6, 0.7]}, r"`context_scale` is .*; it must be two shares"),
        ({"context_scale": [0.8, 0.6]}, r"`context_scale` is .*; it must be two shares"),
        ({"context_scale": [0.8, 1.1]}, r"`context_scale` is .*; it must be two shares"),
        ({"context_scale": []}, r"`context_scale` is \[\]; it must be two shares"),
        ({"target_scale": [0.0, 0.1]}, r"`target_scale` is .*; it must be two shares"),
        ({"target_scale": [0.2, 0.1]}, r"`target_scale` is .*; it must be two shares"),
        (
            {"num_target_blocks": 8},
            r"`context_scale` \[0.65, 0.85\] and 8 targets of `target_scale` \[0.1, 0.25\] can leave 26 of 512 tokens "
            r"visible, but `min_context_tokens` asks for 32",
        ),
        ({"num_target_blocks": 20}, r"can leave 0 of 512 tokens visible"),
        ({"min_context_tokens": 400}, r"can leave 333 of 512 tokens visible, but `min_context_tokens` asks for 400"),
    ],
    ids=str,
)
def test_data_arguments_refuse_impossible_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**arguments)


def test_targets_that_the_context_may_see_take_no_room_from_it():
    scales = {"context_scale": [0.5, 0.7], "target_scale": [0.9, 1.0], "num_target_blocks": 1}
    assert DataArguments(context_excludes_targets=False, **scales).target_scale == [0.9, 1.0]
    with pytest.raises(ValueError, match="can leave 0 of 512 tokens visible"):
        DataArguments(**scales)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mlm_probability": 1.0},
        {"mask_replace_prob": 1.0, "random_replace_prob": 0.0},
        {"mask_replace_prob": 0.0, "random_replace_prob": 0.0},
        {"max_seq_length": 16},
        {"vocab_size": 100},
        {"vocab_size": 100, "train_tokenizer": True},
        {"dataset_name": "name", "dataset_config_name": "en", "streaming": True},
        {"train_file": ["a.txt"], "streaming": True},
        {"context_scale": [1.0, 1.0], "target_scale": [0.1, 0.1]},
        {"num_target_blocks": 7},
    ],
    ids=str,
)
def test_data_arguments_accept_values_at_the_border(arguments):
    DataArguments(**arguments)
