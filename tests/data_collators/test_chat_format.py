"""Templates: what is read, what is supervised, what generation will see."""

import pytest

from predrec.data_collators.chat_format import DATE, ChatFormat, PlainFormat, find_format
from predrec.data_collators.two_views import TwoViews
from predrec.data_collators.view_examples import CUT_AWAY, TOO_LONG, RecordEncoder, encode_records
from predrec.errors import UserError

from .. import causal

STOPS = {
    "llama": "<|eot|>",
    "gemma": "<|im_end|>",
    "openelm": "</s>",
    "olmo": "</s>",
    "qwen": "<|im_end|>",
    "thoughts": "<|im_end|>",
    "deepseek": "</s>",
    "no tail": "</s>",
    None: "</s>",
}
"""Token that ends a completion under every template."""


def encoder(template, pad_is_eos=False, **options):
    tokenizer = causal.tokenizer(template, pad_is_eos)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|p2|>", "<|p1|>"]}, replace_extra_special_tokens=False)
    format_options = {name: options.pop(name) for name in ("view_prefix", "code_role") if name in options}
    ids = tuple(tokenizer.convert_tokens_to_ids(["<|p2|>", "<|p1|>"]))
    return RecordEncoder(tokenizer, find_format(tokenizer, **format_options), ids, **options)


@pytest.mark.parametrize("pad_is_eos", [False, True])
@pytest.mark.parametrize("template", STOPS)
def test_labels_are_the_completion_and_its_stop_token(template, pad_is_eos):
    made = encoder(template, pad_is_eos)
    for record in causal.RECORDS:
        example = made.encode(record)
        supervised = made.tokenizer.decode(example.input_ids[example.num_unsupervised :])
        assert supervised == record.code + STOPS[template]


@pytest.mark.parametrize("template", STOPS)
def test_training_and_generation_see_one_prompt(template):
    made = encoder(template)
    for record in causal.RECORDS:
        example = made.encode(record)
        assert list(example.input_ids[: example.num_unsupervised]) == made.prompt_ids(record)
        assert record.text in made.tokenizer.decode(made.prompt_ids(record))


@pytest.mark.parametrize("template", STOPS)
def test_prompt_is_the_templates_own(template):
    if template is None:
        pytest.skip("plain text has no template")
    made = encoder(template)
    record = causal.RECORDS[1]
    turns = [{"role": "system", "content": record.system}, {"role": "user", "content": record.text}]
    if template == "gemma":
        turns = [{"role": "user", "content": f"{record.system}\n\n{record.text}"}]
    expected = made.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_dict=False, date_string=DATE
    )
    lead = "<think>\n\n</think>\n\n" if template == "thoughts" else ""
    assert made.tokenizer.decode(made.prompt_ids(record)) == made.tokenizer.decode(expected) + lead


@pytest.mark.parametrize("template", STOPS)
def test_readouts_are_the_last_predictor_and_the_last_content_token(template):
    made = encoder(template)
    for record in causal.RECORDS:
        example = made.encode(record)
        assert made.tokenizer.decode(example.source_ids[example.source_readout]) == "<|p1|>"
        read = made.tokenizer.decode(example.target_ids[example.target_readout])
        assert record.code.endswith(read)
        assert example.target_readout == len(example.target_ids) - 1


@pytest.mark.parametrize("template", STOPS)
def test_views_hold_their_own_content_only(template):
    made = encoder(template)
    record = causal.RECORDS[2]
    source, target = (
        made.tokenizer.decode(ids) for ids in (made.encode(record).source_ids, made.encode(record).target_ids)
    )
    assert record.text in source and record.code not in source and record.system not in source
    assert record.code in target and record.text not in target and "<|p1|>" not in target
    assert source.endswith(record.text + "<|p2|><|p1|>")


def test_prepended_predictor_tokens_leave_the_readout_at_the_content():
    made = encoder("qwen", predictor_position="prepend")
    example = made.encode(causal.RECORDS[0])
    assert "<|p2|><|p1|>lines" in made.tokenizer.decode(example.source_ids)
    assert causal.RECORDS[0].text.endswith(made.tokenizer.decode(example.source_ids[example.source_readout]))


def test_code_can_predict_text():
    made = encoder("qwen", direction="code_to_text")
    record = causal.RECORDS[0]
    example = made.encode(record)
    assert made.tokenizer.decode(example.source_ids).endswith(record.code + "<|p2|><|p1|>")
    assert made.tokenizer.decode(example.target_ids).endswith(record.text)


@pytest.mark.parametrize(
    ("template", "offset", "text_reads", "code_reads"),
    [
        ("llama", -2, "<|p1|>", "*"),
        ("gemma", -2, "<|im_end|>", "<|im_end|>"),
        ("olmo", -1, "\n", "</s>"),
        ("deepseek", -1, "<|p1|>", "</s>"),
    ],
)
def test_constant_offsets_read_what_the_specification_says_they_read(template, offset, text_reads, code_reads):
    """The published rule, kept for comparison: it lands on different kinds of tokens."""
    made = encoder(template, readout=offset)
    example = made.encode(causal.RECORDS[3])
    assert made.tokenizer.decode(example.source_ids[example.source_readout]) == text_reads
    assert made.tokenizer.decode(example.target_ids[example.target_readout])[-1:] == code_reads[-1:]


def test_template_end_reads_the_last_token():
    made = encoder("llama", readout="template_end")
    example = made.encode(causal.RECORDS[0])
    assert made.tokenizer.decode(example.source_ids[example.source_readout]) == "<|eot|>"


def test_a_template_that_refuses_a_lone_assistant_gets_the_code_as_user():
    assert ChatFormat(causal.tokenizer("gemma")).code_role == "user"
    assert ChatFormat(causal.tokenizer("qwen")).code_role == "assistant"
    with pytest.raises(UserError, match="`code_role` assistant"):
        ChatFormat(causal.tokenizer("gemma"), code_role="assistant")


def test_role_only_leaves_out_the_automatic_system_turn():
    whole, short = (encoder("llama", view_prefix=name).encode(causal.RECORDS[0]) for name in ("template", "role_only"))
    made = encoder("llama")
    assert "system" in made.tokenizer.decode(whole.source_ids)
    expected = f"<s><|head|>user<|endhead|>\n{causal.RECORDS[0].text}<|p2|><|p1|>"
    assert made.tokenizer.decode(short.source_ids) == expected
    assert made.tokenizer.decode(short.target_ids) == "<s><|head|>assistant<|endhead|>\n" + causal.RECORDS[0].code


def test_the_date_is_pinned():
    assert f"Today: {DATE}" in encoder("llama").tokenizer.decode(encoder("llama").encode(causal.RECORDS[0]).source_ids)


def test_outer_spaces_go_where_the_template_cuts_them():
    record = TwoViews(" a text ", "code", None)
    assert encoder("llama").format.view(record.text, "text").content == "a text"
    assert encoder("qwen").format.view(record.text, "text").content == " a text "


def test_another_pair_for_the_views():
    made = encoder("qwen")
    example = made.encode(TwoViews("question with letters", "B", None, jepa_text="question", jepa_code="the ending"))
    assert made.tokenizer.decode(example.source_ids).endswith("question<|p2|><|p1|>")
    assert made.tokenizer.decode(example.target_ids).endswith("the ending")
    assert made.tokenizer.decode(example.input_ids).endswith("B<|im_end|>\n".rstrip())


def test_plain_text_has_the_bos_that_the_tokenizer_adds():
    assert find_format(causal.tokenizer()) == PlainFormat("\n", "")
    assert find_format(causal.tokenizer(adds_bos=True)) == PlainFormat("\n", "<s>")


def test_chat_without_a_template_is_refused():
    with pytest.raises(UserError, match="no chat template"):
        find_format(causal.tokenizer(), "chat")


def test_a_tokenizer_that_cannot_stop_is_refused():
    tokenizer = causal.tokenizer("no tail")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="EOS"):
        RecordEncoder(tokenizer, find_format(tokenizer)).encode(causal.RECORDS[0])


def test_drops_are_counted_by_reason():
    long = TwoViews("word " * 40, "code", None)
    wide = TwoViews("word", "code", None, jepa_code="code " * 40)
    examples, dropped = encode_records([causal.RECORDS[0], long, wide, long], encoder("qwen", max_seq_length=64))
    assert len(examples) == 1 and dropped == {CUT_AWAY: 2, TOO_LONG: 1}
    with pytest.raises(UserError, match="All 1 records were dropped"):
        encode_records([long], encoder("qwen", max_seq_length=64))


def test_equal_targets_have_equal_numbers():
    records = [*causal.RECORDS, TwoViews("any line at all", ".*")]
    numbers = [example.pair_number for example in encode_records(records, encoder("qwen"))[0]]
    assert numbers == [0, 1, 2, 3, 3]


def test_all_tokens_are_supervised_on_request():
    assert encoder("qwen", label_scope="all").encode(causal.RECORDS[0]).num_unsupervised == 0


def test_double_bos_is_what_joint_tokenization_gave():
    tokenizer = causal.tokenizer("llama", adds_bos=True)
    once, twice = (RecordEncoder(tokenizer, find_format(tokenizer), double_bos=value) for value in (False, True))
    assert once.prompt_ids(causal.RECORDS[0])[:2] != [0, 0]
    assert twice.prompt_ids(causal.RECORDS[0])[:2] == [0, 0]
