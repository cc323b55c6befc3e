r"""Do two regular expressions describe the same lines? Decided by walking both automata at once.

States are derivatives: what is left to match after some characters (Brzozowski, 1964), which gives intersection and
complement for nothing. Equal expressions are one number, so comparing states is comparing numbers, and unions lose
what they hold twice, which keeps the states finitely many. The walk joins states that must be equal (Hopcroft and
Karp, 1971) and ends at the first pair of which one accepts and the other does not.

`\b` has no width, so what a state accepts and where it goes depends on whether a word character came before; that one
bit is part of a state. Characters that no class of the two regexes tells apart are one letter.
"""

from .regex_expressions import ExhaustedError, Expressions
from .regex_language import Regex, RegexTooLargeError, parse

MAX_WORK = 200_000
"""Expressions built or looked at before a comparison is given up; one of NL-RX takes some hundreds."""


def equivalent(first: str, second: str, *, boundary_is_letter: bool = False, max_work: int = MAX_WORK) -> bool | None:
    r"""Do two regexes describe the same lines? The original metric of NL-RX, called DFA-equal there.

    Two regexes that nothing matches, such as `dog&[a-z]` and `[0-9]&[A-Z]`, are equivalent.

    Args:
        first, second (`str`): In the dialect of [`parse`].
        boundary_is_letter (`bool`, defaults to `False`): Read `\b` as the letter b, as the original evaluation does.
        max_work (`int`, defaults to `MAX_WORK`):
            Steps before giving up, the same on every machine. The default is about a second.

    Returns:
        `None` when undecided: a regex is too large to be read, or `max_work` was reached.

    Raises:
        RegexSyntaxError: If one of them is no regex. Its message tells which.

    Reference:
        Locascio et al., 2016, https://arxiv.org/abs/1608.03000; Owens, Reppy and Turon, 2009, "Regular-expression
        derivatives re-examined".
    """
    try:
        trees = parse(first, boundary_is_letter), parse(second, boundary_is_letter)
        return trees[0] == trees[1] or _same_language(*trees, max_work)
    except (RegexTooLargeError, ExhaustedError):
        return None


def decidable(regex: str, *, boundary_is_letter: bool = False, max_work: int = MAX_WORK) -> bool:
    """Is the whole automaton of a regex within the work that a comparison may take? Arguments as above."""
    try:
        tree = parse(regex, boundary_is_letter)
        expressions = Expressions([tree], max_work)
        todo = [(expressions.built(tree), False)]
        seen = set(todo)
        while todo:
            state = todo.pop()
            for following in (expressions.next(*state, letter) for letter in expressions.letters):
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
    except (RegexTooLargeError, ExhaustedError):
        return False
    return True


def _same_language(first: Regex, second: Regex, max_work: int) -> bool:
    expressions = Expressions([first, second], max_work)
    parents: dict[tuple[int, bool], tuple[int, bool]] = {}

    def representative(state: tuple[int, bool]) -> tuple[int, bool]:
        while state in parents:
            above = parents[state]
            parents[state] = parents.get(above, above)  # Halves the path as it walks it.
            state = above
        return state

    pairs = [((expressions.built(first), False), (expressions.built(second), False))]
    while pairs:
        left, right = (representative(state) for state in pairs.pop())
        if left == right:
            continue
        if expressions.accepts(*left) != expressions.accepts(*right):
            return False
        parents[left] = right
        pairs.extend(
            (expressions.next(*left, letter), expressions.next(*right, letter)) for letter in expressions.letters
        )
    return True
