"""The command that publishes, and a run that publishes itself, against a stand-in for the Hub."""

import os
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from predrec.commands import pretrain
from predrec.commands.push_to_hub import main
from predrec.publish.repository import MARK
from predrec.trainers import PredRecTrainer
from predrec.trainers.interrupt import InterruptCallback
from tests.commands.test_pretrain import TINY
from tests.publish.hub_server import (
    READ_TOKEN,
    UNKNOWN_TOKEN,
    WRITE_TOKEN,
    connect,
    environment,
    running_hub,
)
from tests.publish.runs import CODE, FILES, copied, files_in, finished_run, text_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in, which this process takes for the Hub, with a token that may write."""
    with running_hub() as hub:
        connect(monkeypatch, hub.endpoint, tmp_path / "home")
        yield hub


@pytest.fixture
def run(tmp_path) -> Path:
    """A copy of a finished run."""
    return copied(finished_run(), tmp_path / "run")


@pytest.fixture
def refused(refusal):
    """Runs the command, expects that it refuses, and returns the message."""
    return partial(refusal, main)


# The command


def test_push_publishes_the_folder(hub, run):
    assert main([str(run), "--repo_id", "me/tiny"]) == 0
    assert set(hub.repositories["me/tiny"].files) == FILES | CODE | {".gitattributes"}


def test_push_prints_files_and_address(hub, run, capsys):
    main([str(run), "--repo_id", "me/tiny"])
    printed = capsys.readouterr().out
    oid = hub.repositories["me/tiny"].commits[-1].oid
    assert all(f"  {name}\n" in printed for name in FILES | CODE)
    assert f"published: {hub.endpoint}/me/tiny/commit/{oid}\n" in printed


def test_push_dry_run_prints_the_tree_and_asks_nothing(hub, run, capsys):
    assert main([str(run), "--repo_id", "me/tiny", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name}\n" in printed for name in FILES | CODE) and "Nothing was uploaded." in printed
    assert hub.requests == []


def test_push_dry_run_needs_no_network(run):
    assert constants.HF_HUB_OFFLINE
    assert main([str(run), "--repo_id", "me/tiny", "--dry_run"]) == 0


def test_push_assembles_beside_the_run(run):
    before = files_in(run)
    main([str(run), "--repo_id", "me/tiny", "--dry_run"])
    assert files_in(run) == before and files_in(run.parent / "run-hub") == FILES | CODE | {MARK}


def test_push_assembles_beside_the_run_that_it_stands_in(run, monkeypatch):
    monkeypatch.chdir(run)
    assert main([".", "--repo_id", "me/tiny", "--dry_run"]) == 0
    assert (run.parent / "run-hub" / MARK).is_file()


def test_push_assembles_where_it_is_told(run, tmp_path):
    main([str(run), "--repo_id", "me/tiny", "--dry_run", "--output_dir", str(tmp_path / "a/b")])
    assert files_in(tmp_path / "a/b") == FILES | CODE | {MARK}


def test_push_hands_its_options_on(hub, run):
    words = ["--private", "true", "--commit_message", "Hello", "--license", "mit"]
    assert main([str(run), "--repo_id", "me/tiny", *words]) == 0
    repository = hub.repositories["me/tiny"]
    assert repository.private and repository.commits[-1].message == "Hello"
    assert "\nlicense: mit\n" in repository.files["README.md"].decode()


def test_push_says_that_there_is_no_licence(run, capsys):
    main([str(run), "--repo_id", "me/tiny", "--dry_run"])
    assert "The card names no licence: add --license apache-2.0, or another." in capsys.readouterr().out


def test_push_says_nothing_of_the_licence_where_there_is_one(run, capsys):
    main([str(run), "--repo_id", "me/tiny", "--dry_run", "--license", "mit"])
    assert "licence" not in capsys.readouterr().out


def test_push_update_adds_a_commit(hub, run):
    main([str(run), "--repo_id", "me/tiny"])
    (run / "README.md").write_text((run / "README.md").read_text() + "\nMore.\n")
    assert main([str(run), "--repo_id", "me/tiny", "--update"]) == 0
    assert hub.repositories["me/tiny"].commits[-1].changed == {"README.md"}


def test_push_shows_its_help(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0 and "--repo_id" in capsys.readouterr().out


def test_push_needs_a_source(refused):
    assert "Give the folder of the run first" in refused("--repo_id", "me/tiny")


def test_push_refuses_a_source_that_is_not_there(refused, tmp_path):
    assert "There is no folder" in refused(tmp_path / "nowhere", "--repo_id", "me/tiny")


def test_push_needs_a_name(refused, run):
    assert "repo_id" in refused(run)


def test_push_refuses_a_wrong_name_before_it_assembles(refused, run):
    assert "`repo_id`: " in refused(run, "--repo_id", "me/with space")
    assert not run.with_name("run-hub").exists()


def test_push_refuses_an_unknown_argument(refused, run):
    assert "did you mean `license`?" in refused(run, "--repo_id", "me/tiny", "--licence", "mit")


def test_push_refuses_a_folder_that_is_no_run(refused, tmp_path):
    assert "is not a finished run or export" in refused(tmp_path, "--repo_id", "me/tiny")


def test_push_of_a_broken_run_asks_nothing(hub, refused, run):
    tensors = load_file(run / "model.safetensors")
    tensors["lm_head.dense.weight"].fill_(float("nan"))
    save_file(tensors, run / "model.safetensors", metadata={"format": "pt"})
    assert "weights that are not finite" in refused(run, "--repo_id", "me/tiny")
    assert hub.requests == []


def test_push_offline_is_one_message(refused, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", WRITE_TOKEN)
    assert "HF_HUB_OFFLINE is set" in refused(run, "--repo_id", "me/tiny")


def test_push_refuses_a_repository_with_files(hub, refused, run):
    hub.create("me/tiny", files={"config.json": b"{}"})
    assert "--update" in refused(run, "--repo_id", "me/tiny")


def test_push_with_a_wrong_token_is_one_message(hub, refused, run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", UNKNOWN_TOKEN)
    message = refused(run, "--repo_id", "me/tiny")
    assert "The Hub refuses the access token" in message and UNKNOWN_TOKEN not in message


def python(*words: str, variables: dict[str, str], cwd: Path) -> subprocess.CompletedProcess:
    """Runs Python in a process of its own."""
    names = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=os.environ | variables | names, capture_output=True, text=True
    )


@pytest.mark.slow
def test_script_publishes_what_another_process_loads(run, tmp_path):
    """From the command line to the examples of the card, in a process without predrec, by the name on the Hub."""
    with running_hub() as hub:
        variables, words = environment(hub, tmp_path / "mine"), ["--repo_id", "me/tiny", "--private", "false"]
        pushed = python(str(ROOT / "scripts/push_to_hub.py"), str(run), *words, variables=variables, cwd=tmp_path)
        assert pushed.returncode == 0, pushed.stderr
        variables = environment(hub, tmp_path / "theirs", token=None)
        card = hub.repositories["me/tiny"].files["README.md"].decode()
        blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
        script = "import sys; sys.modules['predrec'] = None\n" + "\n".join(blocks)
        loaded = python("-c", script, variables=variables, cwd=tmp_path)
        assert loaded.returncode == 0, loaded.stderr
        assert "torch.Size([2, 16])" in loaded.stdout
        assert hub.sent(r"GET /me/tiny/resolve/\w+/modeling_predrec\.py")


# A run that publishes itself


@pytest.fixture
def words(tmp_path) -> list[str]:
    """A command line that trains and publishes."""
    paths = ["--train_file", str(text_file()), "--output_dir", str(tmp_path / "out")]
    return [*paths, *TINY, "--push_to_hub", "true", "--hub_model_id", "me/run"]


@pytest.fixture
def no_training(monkeypatch):
    """Makes training a failure."""

    def train(self, *args, **kwargs):
        raise AssertionError("It trained.")

    monkeypatch.setattr(PredRecTrainer, "train", train)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The repository of a run that was given its token on the command line, where the run was, and what it printed."""
    folder = tmp_path_factory.mktemp("published")
    paths = ["--train_file", str(text_file()), "--output_dir", str(folder / "out")]
    options = ["--push_to_hub", "true", "--hub_model_id", "me/run", "--hub_token", WRITE_TOKEN]
    with pytest.MonkeyPatch.context() as monkeypatch, running_hub() as hub, redirect_stdout(StringIO()) as printed:
        connect(monkeypatch, hub.endpoint, folder / "home", token=None)
        assert pretrain.main([*paths, *TINY, *options, "--hub_private_repo", "true"]) == 0
        yield hub.repositories["me/run"], folder, printed.getvalue()


def test_run_publishes_itself_in_one_commit(published):
    commits = published[0].commits
    assert [commit.message for commit in commits] == ["initial commit", "End of training"]
    assert commits[-1].changed == FILES | CODE


def test_run_publishes_what_it_trained(published):
    repository, folder, _ = published
    assert repository.files["model.safetensors"] == (folder / "out/model.safetensors").read_bytes()


def test_run_publishes_a_card_that_loads_the_repository(published):
    assert 'directory = "me/run"\n' in published[0].files["README.md"].decode()


def test_run_is_private_when_asked(published):
    assert published[0].private


def test_run_publishes_no_path_of_this_machine(published):
    repository, folder, _ = published
    folders = [str(folder).encode(), str(text_file().parent).encode()]
    assert not [name for name, content in repository.files.items() if any(one in content for one in folders)]


def test_run_writes_its_token_nowhere(published):
    _, folder, printed = published
    written = [path for path in folder.rglob("*") if path.is_file() and WRITE_TOKEN.encode() in path.read_bytes()]
    assert (folder / "out/checkpoint-4/training_args.bin").is_file()
    assert written == [] and WRITE_TOKEN not in printed


def test_run_creates_its_repository_before_it_trains(hub, words, monkeypatch):
    there = []
    train = PredRecTrainer.train

    def noting(self, *args, **kwargs):
        there.extend(hub.repositories)
        return train(self, *args, **kwargs)

    monkeypatch.setattr(PredRecTrainer, "train", noting)
    assert pretrain.main(words) == 0
    assert there == ["me/run"]


def test_run_takes_the_name_of_its_folder(hub, words):
    assert pretrain.main([word for word in words if word not in ("--hub_model_id", "me/run")]) == 0
    assert set(hub.repositories) == {"me/out"}
    assert 'directory = "me/out"\n' in hub.repositories["me/out"].files["README.md"].decode()


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (UNKNOWN_TOKEN, "The Hub refuses the access token"),
        (READ_TOKEN, "The access token may not write there"),
        (None, "There is no access token"),
    ],
)
def test_run_with_a_token_that_does_not_do_stops_before_training(
    hub, words, monkeypatch, capfd, no_training, token, message
):
    connect(monkeypatch, hub.endpoint, Path("nowhere"), token)
    assert pretrain.main(words) == 2
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error


def test_run_without_a_network_stops_before_training(hub, words, monkeypatch, capfd, no_training):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pretrain.main(words) == 2
    assert "HF_HUB_OFFLINE is set" in capfd.readouterr().err


def test_run_whose_upload_fails_keeps_everything(hub, words, tmp_path, capfd):
    hub.fail("/commit/", status=500)
    assert pretrain.main(words) == 2
    error = capfd.readouterr().err
    assert "Nothing is lost" in error and "hf upload me/run" in error and "Traceback" not in error
    assert files_in(tmp_path / "out") >= FILES | CODE and files_in(tmp_path / "out-hub") == FILES | CODE | {MARK}


def test_interrupted_run_publishes_nothing(hub, words, monkeypatch):
    def stop(self, args, state, control, **kwargs):
        self.signal_number = 15
        control.should_training_stop = True

    monkeypatch.setattr(InterruptCallback, "on_step_end", stop)
    assert pretrain.main(words) == 128 + 15
    assert len(hub.repositories["me/run"].commits) == 1
