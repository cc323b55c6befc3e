"""The way to the Hub, and what to do when it is barred."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from ..errors import UserError
from .repository import MARK, address_card

UNTOUCHED = {".gitattributes", "README.md"}
"""Files that a new repository may have before anything is pushed."""


def check_repo_id(repo_id: str) -> None:
    """Raises a [`UserError`] if the Hub would not take the name of the repository."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"`repo_id`: {error}") from error


def create_repository(
    repo_id: str, private: bool | None = None, token: str | None = None, kept: Sequence[str] = ()
) -> str:
    """Creates a repository unless it is there; returns its name with that of its owner.

    Args:
        repo_id, private, token: As for [`upload`].
        kept (`Sequence[str]`): Lines to add to an error: what is safe.

    Raises:
        UserError: If the name is wrong, there is no token or it is refused, the Hub cannot be reached, or a public
            repository is there and a private one was asked for.
    """
    check_repo_id(repo_id)
    api = _api(token)
    with hub_errors_explained(kept):
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        public = bool(private) and not api.repo_info(repo_id).private
    if public:
        raise UserError(f"`private`: {repo_id} exists and is public. Make it private on the Hub first.", kept)
    return repo_id


def upload(
    folder: Path,
    repo_id: str,
    private: bool | None = None,
    update: bool = False,
    commit_message: str = "Upload the encoder",
    token: str | None = None,
    revision: str | None = None,
) -> str:
    """Uploads a folder as one commit. What a broken upload has already sent is not sent again.

    Args:
        folder (`Path`): Assembled and checked.
        repo_id (`str`): `name`, or `owner/name`; created if it is not there.
        private (`bool`, *optional*): Whether a new repository is private; the owner's default when absent.
        update (`bool`, defaults to `False`): Add a commit to a repository that already has files.
        commit_message (`str`): Of the commit.
        token (`str`, *optional*): Access token; the one of `hf auth login` or `HF_TOKEN` when absent.
        revision (`str`, *optional*): Branch to commit to.

    Returns:
        Address of the commit.

    Raises:
        UserError: If there is no token or it is refused, the Hub cannot be reached, or the repository has files and
            `update` is not set. The folder stays.
    """
    by_hand = _by_hand(folder, repo_id, private, commit_message, revision)
    kept = (f"Nothing is lost: {str(folder)!r} is complete. Once that is mended:", f"  {by_hand}")
    given, repo_id, api = repo_id, create_repository(repo_id, private, token, kept), _api(token)
    if repo_id != given:
        address_card(folder / "README.md", repo_id)
    with hub_errors_explained(kept):
        present = set(api.list_repo_files(repo_id))
    if present - UNTOUCHED and not update:
        raise UserError(f"`repo_id`: {repo_id} exists and has files. Add a commit to it with --update.", kept)
    with hub_errors_explained(kept):
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            ignore_patterns=[MARK],
            revision=revision,
        ).commit_url


@contextmanager
def hub_errors_explained(kept: Sequence[str] = ()) -> Iterator[None]:
    """Turns what goes wrong on the way to the Hub into a [`UserError`] that says what to do."""
    try:
        yield
    except RuntimeError as error:
        # So the client reports a large file that did not arrive, whatever the reason was.
        raise UserError(_reason(error.__cause__ or error), kept) from error
    except (OSError, ValueError, HTTPError) as error:
        raise UserError(_reason(error), kept) from error


def _api(token: str | None) -> HfApi:
    """Returns a client that raises `LocalTokenNotFoundError` where there is no token, instead of asking without."""
    return HfApi(token=token or True)


def _by_hand(folder: Path, repo_id: str, private: bool | None, commit_message: str, revision: str | None) -> str:
    """Returns the command line that does the same."""
    words = ["hf", "upload", repo_id, str(folder), "--exclude", MARK, "--commit-message", commit_message]
    words += ["--private"] if private else []
    words += ["--revision", revision] if revision else []
    return shlex.join(words)


def _reason(error: BaseException) -> str:
    if isinstance(error, LocalTokenNotFoundError):
        return "There is no access token: `hf auth login`, or set HF_TOKEN."
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub was not asked: unset it to push."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return (
                "The Hub refuses the access token: make one with write access, then `hf auth login` or set HF_TOKEN."
            )
        if status == 403:
            return f"The access token may not write there: {_first_lines(error)}"
        return f"The Hub refuses: {_first_lines(error)}"
    return f"The Hub cannot be reached: {_first_lines(error)}"


def _first_lines(error: BaseException) -> str:
    """Returns what an error says; what the Hub itself says stands in its second line, if at all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = error.server_message if isinstance(error, HfHubHTTPError) else None
    return " ".join([*lines[:1], *([said] if said and said not in lines[0] else [])]) or type(error).__name__
