"""Runs what a page of the documentation tells its reader to run, made small."""

import configparser
import contextlib
import io
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from predrec.commands import analyze_representations, evaluate_sts, finetune_llm_jepa, pretrain, probe_glue
from predrec.commands.main import COMMANDS
from predrec.commands.main import main as console
from predrec.configuration import parse_recipe
from predrec.configuration.benchmark_arguments import BenchmarkArguments
from predrec.configuration.conversion_arguments import ConversionArguments
from predrec.configuration.export_arguments import ExportArguments
from predrec.configuration.llm_evaluation_arguments import LLMEvaluationArguments
from predrec.configuration.push_arguments import PushArguments
from predrec.configuration.report_arguments import ReportArguments
from tests.commands.test_pretrain import TINY

ROOT = Path(__file__).parents[1]
NOT_HERE = ("needs the network", "needs a GPU")
"""Titles of blocks whose arguments are checked, and no more."""

ARGUMENTS = {
    "pretrain": pretrain.ARGUMENTS,
    "probe_glue": probe_glue.ARGUMENTS,
    "analyze_representations": analyze_representations.ARGUMENTS,
    "evaluate_sts": evaluate_sts.ARGUMENTS,
    "report": (ReportArguments,),
    "benchmark": (BenchmarkArguments,),
    "export": (ExportArguments,),
    "push_to_hub": (PushArguments,),
    "convert_reference_checkpoint": (ConversionArguments,),
    "finetune_llm_jepa": finetune_llm_jepa.ARGUMENTS,
    "evaluate_llm_jepa": (LLMEvaluationArguments,),
}
NAMES = {module: name for name, module in COMMANDS.items()}

ENCODED = [
    "--num_threads",
    "1",
    "--encoder_dtype",
    "float32",
    "--num_attention_draws",
    "1",
    "--max_eval_samples",
    "30",
]
PROBE = ["--num_threads", "1", "--seeds", "2", "--num_train_epochs", "1", "--max_train_samples", "40"]
SMALLEST = ["--use_cpu", "--arms", "mlm", "--size", "tiny", "--max_seq_length", "64", "--batch_size", "2"]
LANGUAGE = [
    *[
        "--model_config",
        '{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}',
    ],
    *["--generated_pairs", "60", "--generated_test_pairs", "20", "--max_steps", "2", "--eval_strategy", "no"],
    *["--max_new_tokens", "4", "--num_threads", "1", "--disable_tqdm", "true", "--per_device_train_batch_size", "8"],
]
OVERRIDES = {
    "benchmark": [*SMALLEST, "--steps", "1", "--warmup_steps", "1", "--num_workers", "0"],
    "pretrain": [*TINY, "--max_steps", "2"],
    "analyze_representations": ENCODED,
    "evaluate_sts": ENCODED,
    "finetune_llm_jepa": LANGUAGE,
    "evaluate_llm_jepa": ["--num_threads", "1", "--max_new_tokens", "4", "--max_test_samples", "20"],
    "convert_reference_checkpoint": [
        *["--tokenizer_name", "tokenizer", "--num_attention_heads", "2", "--predictor_num_attention_heads", "3"]
    ],
}
WITH_DATA = ("probe_glue", "analyze_representations", "evaluate_sts")
SIZES = ("--hidden_size", "--num_hidden_layers", "--num_attention_heads", "--intermediate_size")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    text: str
    then: str
    """The text that is shown after it as what it prints, if that is the same everywhere."""

    @property
    def is_run(self) -> bool:
        return self.title not in NOT_HERE


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in order. What one prints stands behind it, in the same section."""
    pattern = re.compile(r'^```(\w*)(?: title="([^"]*)")?\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)
    found = list(pattern.finditer(page))
    for block, following in itertools.zip_longest(found, found[1:]):
        prints = following is not None and (following[1], following[2]) == ("text", None)
        if prints and re.search(r"^#+ ", page[block.end() : following.start()], flags=re.MULTILINE):
            prints = False
        yield Block(block[1], block[2] or "", block[3], following[3] if prints else "")


class Reader:
    """Does what a page says, in the current folder. A block that it does not understand is an error."""

    def __init__(self) -> None:
        self.names: dict[str, object] = {}

    def follow(self, block: Block) -> None:
        if block.language == "bash":
            for line in commands(block.text.replace("\\\n", " ").splitlines()):
                self.command(shlex.split(line, comments=True), block.is_run)
        elif block.language == "python":
            code = compile(block.text, "page", "exec")
            if block.is_run:
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(code, self.names)
                assert not block.then or printed.getvalue() == block.then, f"It prints {printed.getvalue()!r}."
        elif block.language == "yaml":
            Path(block.title).write_text(block.text, encoding="utf-8")
        else:
            assert block.language in ("text", "bibtex"), f"A block of {block.language!r} is neither run nor marked."

    def command(self, words: list[str], run: bool) -> None:
        match words:
            case []:
                pass
            case ["make", target, *_]:
                makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
                assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make has no target {target}"
            case ["pip", "install", "-e", what]:
                assert set(re.findall(r"[\w-]+", what)) <= extras(), f"an extra of {what} is missing"
            case ["mkdir", *names]:
                for name in names:
                    Path(name).mkdir(parents=True, exist_ok=True)
            case ["cd", name]:
                assert Path(name).is_dir(), f"there is no folder {name}"
            case ["accelerate", "launch", *rest]:
                self.script(launched(rest, launch_command_parser(), "training_script"), run)
            case ["torchrun", *rest]:
                self.script(launched(rest, get_args_parser(), "training_script"), run)
            case ["python", *rest]:
                self.script(rest, run)
            case ["sbatch", *rest]:  # Its own options stand before the script.
                begin = next(index for index, word in enumerate(rest) if not word.startswith("-"))
                assert (ROOT / rest[begin]).is_file() and not run, f"there is no {rest[begin]}, or no SLURM"
                self.console("pretrain", rest[begin + 1 :], run)
            case ["predrec", name, *rest]:
                self.console(COMMANDS[name], rest, run)
            case _:
                raise AssertionError(f"{shlex.join(words)!r} is neither run nor marked.")

    def script(self, words: Sequence[str], run: bool) -> None:
        assert (ROOT / words[0]).is_file() and words[0].startswith("scripts/"), f"there is no {words[0]}"
        self.console(Path(words[0]).stem, list(words[1:]), run)

    def console(self, module: str, words: list[str], run: bool) -> None:
        if words and words[0].startswith("recipes/"):
            words[0] = str(ROOT / words[0])
        if run:
            assert console([NAMES[module], *words, *overrides(module, words)]) == 0, shlex.join(words)
            return
        if module not in ("pretrain", "finetune_llm_jepa"):  # What comes first is no recipe, but a folder.
            words = words[next(index for index, word in enumerate(words) if word.startswith("-")) :]
        parsed = parse_recipe(words, ARGUMENTS[module], module)[0]
        if module == "pretrain":
            pretrain.check_together(*parsed)


def commands(lines: list[str]) -> Iterator[str]:
    """The lines of a script, with its loops unrolled."""
    lines = [line.strip() for line in lines]
    while lines:
        line = lines.pop(0)
        loop = re.fullmatch(r"for (\w+) in (.*); do", line)
        if not loop:
            yield line
            continue
        depth, body = 1, []
        while depth:
            body.append(lines.pop(0))
            depth += body[-1].startswith("for ") - (body[-1] == "done")
        for value in loop[2].split():
            yield from commands([re.sub(rf"\${loop[1]}\b", value, one) for one in body[:-1]])


def launched(words: list[str], parser, name: str) -> list[str]:
    """Checks the arguments of a launcher; returns the script and its own."""
    return [getattr(parser.parse_args(words), name), *parser.parse_args(words).training_script_args]


def extras() -> set[str]:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    return set(setup["options.extras_require"])


def overrides(module: str, words: list[str]) -> list[str]:
    """What makes a command small, and keeps it from the network."""
    data = ["--data_dir", "glue"] if module in WITH_DATA and "--data_dir" not in words else []
    return [*data, *_small(module, words)]


def _small(module: str, words: list[str]) -> list[str]:
    if module == "probe_glue":
        frozen = "finetune" not in words
        return [*PROBE, *(["--encoder_dtype", "float32"] if frozen else ["--disable_tqdm", "true"])]
    if module != "pretrain":
        return OVERRIDES.get(module, [])
    small = list(OVERRIDES["pretrain"])
    if not any(word in words for word in ("--train_file", "--dataset_name")):
        small += ["--train_file", "my/*.txt"]
    if any(word in words for word in ("--tokenizer_name", "--init_from")):
        small.remove("--train_tokenizer")
        drop(small, "--vocab_size")
    if "--validation_file" in words:
        drop(small, "--validation_share")
    if "crops" in words:  # They have no predictor, and all of a piece is seen.
        for name in ("--predictor_num_hidden_layers", "--min_context_tokens"):
            drop(small, name)
    if "--init_from" in words:
        for name in SIZES:
            drop(small, name)
    return small


def drop(words: list[str], name: str) -> None:
    del words[words.index(name) : words.index(name) + 2]
