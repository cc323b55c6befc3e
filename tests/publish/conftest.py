"""Fixtures for the tests of publishing: a Hub of one's own, and folders to publish."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .hub_server import Hub, connect, running_hub
from .runs import assembled_run, copied, finished_run


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    """A stand-in for the Hub, which this process takes for the Hub, with a token that may write."""
    with running_hub() as hub:
        connect(monkeypatch, hub.endpoint, tmp_path / "home")
        yield hub


@pytest.fixture
def run(tmp_path) -> Path:
    """A copy of a finished run, without checkpoints."""
    return copied(finished_run(), tmp_path / "run")


@pytest.fixture
def assembled(tmp_path) -> Path:
    """A folder that is ready for `me/tiny`."""
    return copied(assembled_run(), tmp_path / "run-hub")
