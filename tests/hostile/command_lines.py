"""Words on the command line that mean nothing, or more than any machine has."""

from .cases import Case, ProcessCase, given

LONG = "x" * 300
CASES = (
    ProcessCase("output directory too long", given("--output_dir", LONG), ("`output_dir`", LONG, "Choose another")),
    ProcessCase(
        "output directory that cannot be made",
        given("--output_dir", "/proc/nowhere/run"),
        ("`output_dir`", "'/proc/nowhere/run'", "Choose another"),
    ),
    ProcessCase("output directory of other bytes", given("--output_dir", "a\udcffb"), ("a\\udcffb", "rename")),
    Case("output directory in a device", given("--output_dir", "/dev/null/run"), ("'/dev/null' is a file",)),
    Case("seed", given("--seed", "99999999999999"), ("`seed` is 99999999999999", "below 2**32")),
    Case("data seed", given("--data_seed", "9" * 40), ("`data_seed`", "9" * 40, "below 2**32")),
    Case("steps without end", given("--max_steps", "9" * 30), ("`max_steps`", "at most 1,000,000,000")),
    Case("epochs without end", given("--num_train_epochs", "1e300"), ("`num_train_epochs`", "at most 1,000,000")),
    ProcessCase(
        "width of a thousand million",
        given("--hidden_size", "1000000000"),
        ("`hidden_size` is 1000000000", "at most 131,072"),
    ),
    Case(
        "layers of a thousand million",
        given("--model_type", "modernbert", "--num_hidden_layers", "1000000000"),
        ("`num_hidden_layers` is 1000000000", "at most 1,024"),
    ),
    Case(
        "predictor of a thousand million layers",
        given("--predictor_num_hidden_layers", "1000000000"),
        ("`predictor_num_hidden_layers` is 1000000000", "at most 1,024"),
    ),
    Case(
        "model larger than the memory",
        given("--hidden_size", "131072", "--intermediate_size", "1048576", "--num_hidden_layers", "100"),
        ("`hidden_size`", "GiB, but this machine has", "lower"),
    ),
    Case("row without end", given("--max_seq_length", "9" * 15), ("`max_seq_length`", "at most 1,048,576")),
    Case("vocabulary without end", given("--vocab_size", "9" * 20), ("`vocab_size`", "at most 2,000,000")),
    Case("mask sets without end", given("--num_mask_sets", "100000000"), ("`num_mask_sets`", "at most 64")),
    Case("threads without end", given("--num_threads", "100000"), ("`num_threads` is 100000", "at most 1,024")),
    Case("workers below none", given("--preprocessing_num_workers", "-3"), ("`preprocessing_num_workers` is -3",)),
    Case("checkpoints below none", given("--save_total_limit", "-5"), ("`save_total_limit` is -5", "at least 1")),
    Case("beta", given("--adam_beta1", "2"), ("`adam_beta1` is 2.0", "[0, 1)")),
    Case("epsilon", given("--adam_epsilon", "-1"), ("`adam_epsilon` is -1.0", "positive")),
    ProcessCase("optimizer that is not installed", given("--optim", "lion_8bit"), ("bitsandbytes", "pip install")),
    Case(
        "schedule with unknown options",
        given("--lr_scheduler_kwargs", '{"foo": 1}'),
        ("refuses these arguments", "'foo'"),
    ),
    ProcessCase("JSON nested too deep", given("--encoder_config", "[" * 10_000), ("`encoder_config` is not JSON",)),
    Case("JSON of another type", given("--encoder_config", '{"hidden_size": "wide"}'), ("'hidden_size'", "wide")),
    Case("empty column", given("--text_column", ""), ("`text_column` is ''", "the name of the column")),
    Case("no value", given("--train_file"), ("--train_file", "expected at least one argument")),
    Case("stray word", given("stray\x1b[31m"), ("Unrecognized arguments", "stray\\x1b[31m")),
    Case("nothing but dashes", given("--=3"), ("Unknown argument ``",)),
    Case("checkpoint too long", given("--resume_from_checkpoint", LONG * 10), ("`resume_from_checkpoint`", "is not")),
)
