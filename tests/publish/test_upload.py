"""The way to the Hub, against a stand-in: what arrives there, and what is said and kept when it is barred."""

import re
import shlex

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.cli.hf import main as hf_command
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from predrec.errors import UserError
from predrec.publish.repository import MARK, assemble
from predrec.publish.upload import create_repository, upload

from .hub_server import READ_TOKEN, UNKNOWN_TOKEN, WRITE_TOKEN, connect
from .runs import finished_run

NOBODY = "http://127.0.0.1:1"
"""An address where nothing listens."""


def contents(folder) -> dict[str, bytes]:
    """Returns what is to arrive: every file but the mark of the folder."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in files.items() if name != MARK}


@pytest.fixture
def refused(assembled):
    """Uploads, expects a `UserError` and a folder that is as before, and returns the message."""

    def run(**options) -> str:
        before = contents(assembled)
        with pytest.raises(UserError) as error:
            upload(assembled, **({"repo_id": "me/tiny"} | options))
        assert contents(assembled) == before
        return str(error.value)

    return run


def test_upload_is_one_commit(hub, assembled):
    upload(assembled, "me/tiny", commit_message="First light")
    assert [commit.message for commit in hub.repositories["me/tiny"].commits] == ["initial commit", "First light"]


def test_upload_sends_the_files_of_the_folder_and_nothing_else(hub, assembled):
    upload(assembled, "me/tiny")
    assert hub.repositories["me/tiny"].commits[-1].changed == set(contents(assembled))


def test_upload_leaves_the_mark_at_home(hub, assembled):
    upload(assembled, "me/tiny")
    assert (assembled / MARK).is_file() and MARK not in hub.repositories["me/tiny"].files


def test_upload_sends_every_byte(hub, assembled):
    upload(assembled, "me/tiny")
    files = hub.repositories["me/tiny"].files
    assert {name: files[name] for name in contents(assembled)} == contents(assembled)


def test_upload_returns_the_address_of_the_commit(hub, assembled):
    address = upload(assembled, "me/tiny")
    assert address == f"{hub.endpoint}/me/tiny/commit/{hub.repositories['me/tiny'].commits[-1].oid}"


@pytest.mark.parametrize(("private", "expected"), [(None, False), (False, False), (True, True)])
def test_upload_makes_a_new_repository_as_private_as_asked(hub, assembled, private, expected):
    upload(assembled, "me/tiny", private=private)
    assert hub.repositories["me/tiny"].private is expected


def test_upload_that_is_to_be_private_refuses_a_public_repository(hub, refused):
    hub.create("me/tiny")
    assert refused(private=True).startswith("`private`: me/tiny exists and is public.")
    assert len(hub.repositories["me/tiny"].commits) == 1


def test_upload_that_is_to_be_private_takes_a_private_repository(hub, assembled):
    hub.create("me/tiny", private=True)
    upload(assembled, "me/tiny", private=True)
    assert "model.safetensors" in hub.repositories["me/tiny"].files


def test_upload_adds_the_owner_to_a_bare_name(hub, assembled):
    upload(assembled, "tiny")
    assert set(hub.repositories) == {"me/tiny"}


def test_upload_to_a_bare_name_publishes_a_card_that_names_the_owner(hub, tmp_path):
    assemble(finished_run(), tmp_path / "folder", "tiny")
    upload(tmp_path / "folder", "tiny")
    assert 'directory = "me/tiny"\n' in hub.repositories["me/tiny"].files["README.md"].decode()


def test_upload_fills_a_repository_that_is_there_and_empty(hub, assembled):
    hub.create("me/tiny", files={"README.md": b"# To come\n"})
    upload(assembled, "me/tiny")
    assert "model.safetensors" in hub.repositories["me/tiny"].files


def test_upload_refuses_a_repository_with_files(hub, refused):
    hub.create("me/tiny", files={"model.safetensors": b"precious"})
    assert "me/tiny exists and has files. Add a commit to it with --update." in refused()


def test_upload_that_is_refused_changes_nothing_there(hub, refused):
    hub.create("me/tiny", files={"model.safetensors": b"precious"})
    refused()
    assert len(hub.repositories["me/tiny"].commits) == 2
    assert hub.repositories["me/tiny"].files["model.safetensors"] == b"precious"


def test_upload_with_update_keeps_other_files(hub, assembled):
    hub.create("me/tiny", files={"notes.txt": b"mine", "model.safetensors": b"old"})
    upload(assembled, "me/tiny", update=True)
    files = hub.repositories["me/tiny"].files
    assert files["notes.txt"] == b"mine" and files["model.safetensors"] == contents(assembled)["model.safetensors"]


def test_upload_with_update_commits_only_what_changed(hub, assembled):
    upload(assembled, "me/tiny")
    (assembled / "README.md").write_text((assembled / "README.md").read_text() + "\nMore.\n")
    upload(assembled, "me/tiny", update=True)
    assert hub.repositories["me/tiny"].commits[-1].changed == {"README.md"}


def test_upload_with_update_of_the_same_files_makes_no_commit(hub, assembled):
    address = upload(assembled, "me/tiny")
    assert upload(assembled, "me/tiny", update=True) == address
    assert len(hub.repositories["me/tiny"].commits) == 2


@pytest.mark.parametrize("repo_id", ["a/b/c", "me/with space", "me/--x", "me/tiny.git", "", "/tiny"])
def test_upload_refuses_a_wrong_name_before_it_asks_the_hub(hub, refused, repo_id):
    assert refused(repo_id=repo_id).startswith("`repo_id`: ")
    assert hub.requests == []


def test_upload_without_a_token_says_how_to_get_one(hub, refused, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert refused().startswith("There is no access token: `hf auth login`, or set HF_TOKEN.")


def test_upload_without_a_token_asks_nothing(hub, refused, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    refused()
    assert hub.requests == []


def test_upload_takes_the_token_that_is_given(hub, assembled, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    upload(assembled, "me/tiny", token=WRITE_TOKEN)
    assert "model.safetensors" in hub.repositories["me/tiny"].files


def test_upload_with_a_refused_token_says_so(hub, refused):
    assert refused(token=UNKNOWN_TOKEN).startswith("The Hub refuses the access token: make one with write access")


def test_upload_with_a_token_that_may_only_read_says_so(hub, refused):
    message = refused(token=READ_TOKEN)
    assert message.startswith("The access token may not write there: 403 Forbidden: your token has read access only")


def test_upload_with_a_token_that_may_only_read_says_so_where_the_repository_exists(hub, refused):
    hub.create("me/tiny")
    assert refused(token=READ_TOKEN).startswith("The access token may not write there: 403")


def test_upload_to_somebody_else_says_what_the_hub_says(hub, refused):
    message = refused(repo_id="you/tiny")
    assert message.startswith(
        'The access token may not write there: 403 Forbidden: you cannot create a model under "you"'
    )


def test_upload_without_a_network_says_so(monkeypatch, refused, tmp_path):
    connect(monkeypatch, NOBODY, tmp_path / "home")
    assert re.match(r"The Hub cannot be reached: .*[Cc]onnection refused", refused())


def test_upload_in_offline_mode_says_so(hub, refused, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused().startswith("HF_HUB_OFFLINE is set, so the Hub was not asked: unset it to push.")
    assert hub.requests == []


@pytest.mark.parametrize(
    "request_",
    [
        "/api/repos/create",
        "/api/models/me/tiny",
        "/preupload/",
        "/info/lfs/objects/batch",
        "PUT /storage/",
        "/commit/",
    ],
)
def test_upload_that_meets_a_broken_server_says_so(hub, refused, request_):
    hub.fail(request_, status=500)
    assert refused().startswith("The Hub refuses: ")
    assert hub.sent(request_)


@pytest.mark.parametrize(
    "request_",
    [
        "/api/repos/create",
        "/api/models/me/tiny",
        "/preupload/",
        "/info/lfs/objects/batch",
        "PUT /storage/",
        "/commit/",
    ],
)
def test_upload_whose_connection_breaks_says_so(hub, refused, request_):
    hub.fail(request_)
    assert refused().startswith("The Hub cannot be reached: ")


def test_upload_says_what_the_hub_says_of_a_bad_request(hub, refused, monkeypatch):
    hub.fail("/commit/", status=400)
    assert "planted failure" in refused().splitlines()[0]


def test_upload_by_xet_that_fails_is_explained(hub, refused, monkeypatch):
    """Xet is native code, with exceptions of its own: the stand-in does not speak it, so it fails."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    assert "hf upload me/tiny" in refused()


def test_upload_goes_on_after_a_hiccup(hub, assembled):
    hub.fail("PUT /storage/", status=500, times=2)
    upload(assembled, "me/tiny")
    files = hub.repositories["me/tiny"].files
    assert {name: files[name] for name in contents(assembled)} == contents(assembled)


def test_upload_that_broke_makes_no_commit(hub, refused):
    hub.fail("PUT /storage/", after=1)
    refused()
    assert len(hub.repositories["me/tiny"].commits) == 1


def test_upload_that_broke_can_be_run_again(hub, assembled, refused):
    hub.fail("PUT /storage/", after=1)
    refused()
    hub.fault = None
    upload(assembled, "me/tiny")
    files = hub.repositories["me/tiny"].files
    assert {name: files[name] for name in contents(assembled)} == contents(assembled)


def test_upload_that_broke_does_not_send_again_what_arrived(hub, assembled, refused):
    hub.fail("PUT /storage/", after=1)
    refused()
    [arrived] = hub.objects
    hub.fault, hub.requests[:] = None, []
    upload(assembled, "me/tiny")
    assert hub.sent("PUT /storage/") and not hub.sent(f"PUT /storage/{arrived}")


def test_upload_whose_commit_broke_sends_no_large_file_again(hub, assembled, refused):
    hub.fail("/commit/")
    refused()
    hub.fault, hub.requests[:] = None, []
    upload(assembled, "me/tiny")
    assert not hub.sent("PUT /storage/")


@pytest.mark.parametrize("private", [None, True])
def test_command_that_an_error_names_does_the_upload(hub, refused, assembled, monkeypatch, private):
    hub.fail("/api/repos/create", status=500)
    typed = refused(private=private).splitlines()[-1]
    hub.fault = None
    monkeypatch.setattr("sys.argv", shlex.split(typed))
    with pytest.raises(SystemExit) as left:
        hf_command()
        raise SystemExit(0)
    assert left.value.code in (0, None)
    repository = hub.repositories["me/tiny"]
    assert repository.commits[-1].changed == set(contents(assembled)) and repository.private is bool(private)


def test_no_error_shows_a_token(hub, refused):
    assert UNKNOWN_TOKEN not in refused(token=UNKNOWN_TOKEN)


def test_create_repository_returns_the_whole_name(hub):
    assert create_repository("tiny") == "me/tiny"


def test_create_repository_takes_one_that_is_there(hub):
    hub.create("me/tiny", files={"config.json": b"{}"})
    assert create_repository("me/tiny") == "me/tiny"


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
@pytest.mark.parametrize("kind", [AutoModel, AutoModelForMaskedLM])
def test_published_encoder_is_the_trained_one(hub, tmp_path, model_type, kind):
    run = finished_run(model_type)
    assemble(run, tmp_path / "folder", "me/tiny")
    upload(tmp_path / "folder", "me/tiny")
    loaded, info = kind.from_pretrained("me/tiny", output_loading_info=True)
    expected = kind.from_pretrained(run).state_dict()
    trained = {name: value for name, value in expected.items() if not name.startswith("pooler.")}
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in trained.items())
    assert not info["unexpected_keys"] or kind is AutoModel
    assert hub.sent(r"GET /me/tiny/resolve/\w+/model\.safetensors")


@pytest.mark.parametrize("model_type", ["predrec", "bert"])
def test_published_tokenizer_is_that_of_the_run(hub, tmp_path, model_type):
    run = finished_run(model_type)
    assemble(run, tmp_path / "folder", "me/tiny")
    upload(tmp_path / "folder", "me/tiny")
    text = "the old sea takes a slow grey ship"
    assert AutoTokenizer.from_pretrained("me/tiny")(text) == AutoTokenizer.from_pretrained(run)(text)


def test_published_bert_has_no_code(hub, tmp_path):
    assemble(finished_run("bert"), tmp_path / "folder", "me/tiny")
    upload(tmp_path / "folder", "me/tiny")
    assert not [name for name in HfApi().list_repo_files("me/tiny") if name.endswith(".py")]
