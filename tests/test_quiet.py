import pytest
from transformers.utils import logging

from predrec.quiet import quiet_loading


@pytest.fixture(autouse=True)
def loud():
    """Whatever the level was, these tests begin at INFO with bars, and leave what they found."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    yield
    logging.set_verbosity(level)
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


def test_quiet_loading_silences_and_restores():
    with quiet_loading():
        assert logging.get_verbosity() == logging.ERROR
        assert not logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.INFO
    assert logging.is_progress_bar_enabled()


def test_quiet_loading_restores_after_an_error():
    with pytest.raises(OSError, match="no such model"), quiet_loading():
        raise OSError("no such model")
    assert logging.get_verbosity() == logging.INFO
    assert logging.is_progress_bar_enabled()


def test_quiet_loading_leaves_bars_off_that_were_off():
    logging.disable_progress_bar()
    with quiet_loading():
        pass
    assert not logging.is_progress_bar_enabled()
