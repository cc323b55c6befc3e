"""From a function of words to a command with an exit code."""

import functools
import sys
from collections.abc import Callable, Sequence

from ..errors import UserError, one_line
from ..trainers.failures import RunFailedError
from ..trainers.finite import NonFiniteLossError


def command(work: Callable[[list[str]], int]) -> Callable[..., int]:
    """Makes a command of a function that takes its words and returns an exit code.

    The command takes those of the process when it is given none. What the user can mend ends it with 2, a run that
    failed with 1, both with an error of one line and the details below it.
    """

    @functools.wraps(work)
    def main(argv: Sequence[str] | None = None) -> int:
        try:
            return work(sys.argv[1:] if argv is None else list(argv))
        except UserError as error:
            print(f"error: {one_line(error.message)}", *map(one_line, error.details), sep="\n  ", file=sys.stderr)
            return 2
        except (NonFiniteLossError, RunFailedError) as error:
            print(f"error: {one_line(str(error))}", file=sys.stderr)
            return 1

    return main
