"""Regular expressions as numbers, with what is left of each after a letter: its derivative."""

from collections.abc import Iterable

from .regex_language import (
    ANY,
    WORD,
    Boundary,
    Characters,
    Complement,
    Concatenation,
    Intersection,
    Ranges,
    Regex,
    Repetition,
    Union,
)

NOTHING, EMPTY, EVERYTHING, BOUNDARY = range(4)
"""Numbers of four expressions: no string, the empty string, every string, a word boundary."""


class ExhaustedError(Exception):
    """The work allowed is done."""


def _alphabet(trees: Iterable[Regex]) -> tuple[list[Ranges], list[int]]:
    """Returns the character sets of the trees, and letters: for each, a bit per set that holds it."""
    sets = {ANY}
    todo = list(trees)
    while todo:
        match todo.pop():
            case Characters(ranges):
                sets.add(ranges)
            case Boundary():
                sets.add(WORD)
            case Concatenation(parts) | Union(parts) | Intersection(parts):
                todo.extend(parts)
            case Complement(part) | Repetition(part):
                todo.append(part)
    ordered = sorted(sets)
    changes: dict[int, int] = {}
    for number, ranges in enumerate(ordered):
        for low, high in ranges:
            changes[low] = changes.get(low, 0) ^ 1 << number
            changes[high + 1] = changes.get(high + 1, 0) ^ 1 << number
    letters, letter = set(), 0
    for position in sorted(changes):
        letter ^= changes[position]
        letters.add(letter)
    return ordered, sorted(letters - {0})


class Expressions:
    """Expressions over a small alphabet, numbered, simplified as they are built, and their derivatives.

    An expression is `(kind, ...)`: `("characters", letters)` with a bit per letter, `("concatenation", parts)`,
    `("union", parts)` and `("intersection", parts)` with parts that are sorted sets, `("complement", part)`,
    `("repetition", part, least, most)`.
    """

    def __init__(self, trees: list[Regex], max_work: int):
        self.sets, signatures = _alphabet(trees)
        self.letters = range(len(signatures))
        self.bits = {
            ranges: sum(1 << letter for letter in self.letters if signatures[letter] >> number & 1)
            for number, ranges in enumerate(self.sets)
        }
        word = self.bits.get(WORD, 0)
        self.is_word = [bool(word >> letter & 1) for letter in self.letters]
        self.work = max_work
        self.nodes: list[tuple] = []
        self.numbers: dict[tuple, int] = {}
        self.has_boundary: list[bool] = []
        self.known: dict[tuple[int, bool, int], int] = {}
        for node in (("characters", 0), ("concatenation", ()), ("complement", NOTHING), ("boundary",)):
            self.numbered(node)

    def numbered(self, node: tuple) -> int:
        number = self.numbers.get(node)
        if number is None:
            number = self.numbers[node] = len(self.nodes)
            self.nodes.append(node)
            self.has_boundary.append(node[0] == "boundary" or any(self.has_boundary[part] for part in _parts(node)))
        return number

    def spend(self, amount: int) -> None:
        self.work -= amount
        if self.work < 0:
            raise ExhaustedError

    def built(self, tree: Regex) -> int:
        """Returns the number of a syntax tree."""
        match tree:
            case Characters(ranges):
                return self.numbered(("characters", self.bits[ranges]))
            case Boundary():
                return BOUNDARY
            case Concatenation(parts):
                return self.concatenation([self.built(part) for part in parts])
            case Union(parts):
                return self.union([self.built(part) for part in parts])
            case Intersection(parts):
                return self.intersection([self.built(part) for part in parts])
            case Complement(part):
                return self.complement(self.built(part))
            case Repetition(part, least, most):
                return self.repetition(self.built(part), least, most)

    def concatenation(self, numbers: Iterable[int]) -> int:
        parts: list[int] = []
        for number in numbers:
            if number == NOTHING:
                return NOTHING
            inner = self.nodes[number][1] if self.nodes[number][0] == "concatenation" else (number,)
            # Any string twice is any string.
            parts.extend(inner[1:] if inner and parts and inner[0] == parts[-1] == EVERYTHING else inner)
        self.spend(1 + len(parts))
        if len(parts) == 1:
            return parts[0]
        if parts and self.nodes[parts[0]][0] == "union":
            # (a|b)c is ac|bc: derivatives then are sets of the same few concatenations.
            return self.union([self.concatenation([part, *parts[1:]]) for part in self.nodes[parts[0]][1]])
        return self.numbered(("concatenation", tuple(parts)))

    def union(self, numbers: Iterable[int]) -> int:
        return self.gathered("union", numbers, NOTHING, EVERYTHING)

    def intersection(self, numbers: Iterable[int]) -> int:
        return self.gathered("intersection", numbers, EVERYTHING, NOTHING)

    def gathered(self, kind: str, numbers: Iterable[int], neutral: int, absorbing: int) -> int:
        """Builds a union or an intersection: parts once each, one character set, nothing that changes nothing."""
        parts: set[int] = set()
        letters = None
        for number in numbers:
            for part in self.nodes[number][1] if self.nodes[number][0] == kind else (number,):
                node = self.nodes[part]
                if node[0] == "characters":
                    seen = node[1] if letters is None else letters
                    letters = seen | node[1] if kind == "union" else seen & node[1]
                elif part != neutral:
                    parts.add(part)
        if letters is not None:
            characters = self.numbered(("characters", letters))
            if characters != neutral:
                parts.add(characters)
        self.spend(1 + len(parts))
        if absorbing in parts or (kind == "intersection" and letters is not None and EMPTY in parts):
            return absorbing
        if len(parts) < 2:
            return parts.pop() if parts else neutral
        return self.numbered((kind, tuple(sorted(parts))))

    def complement(self, number: int) -> int:
        node = self.nodes[number]
        return node[1] if node[0] == "complement" else self.numbered(("complement", number))

    def repetition(self, number: int, least: int, most: int | None) -> int:
        if most == 0 or number == EMPTY or (number == NOTHING and least == 0):
            return EMPTY
        if number in (NOTHING, EVERYTHING) or (least, most) == (1, 1):
            return number
        node = self.nodes[number]
        if node[0] == "repetition" and node[2:] == (0, None):
            return number
        if least == 0 and most is None and number == self.numbered(("characters", self.bits[ANY])):
            return EVERYTHING
        return self.numbered(("repetition", number, least, most))

    def accepts(self, number: int, after_word: bool) -> bool:
        """Is the line complete where it ends?"""
        return self.nullable(number, after_word, False)

    def nullable(self, number: int, after_word: bool, before_word: bool) -> bool:
        """Does the empty string match between two characters, of which each is of a word or not?"""
        self.spend(1)
        match self.nodes[number]:
            case ("characters", _):
                return False
            case ("boundary",):
                return after_word != before_word
            case ("concatenation", parts) | ("intersection", parts):
                return all(self.nullable(part, after_word, before_word) for part in parts)
            case ("union", parts):
                return any(self.nullable(part, after_word, before_word) for part in parts)
            case ("complement", part):
                return not self.nullable(part, after_word, before_word)
            case (_, part, least, _):
                return least == 0 or self.nullable(part, after_word, before_word)

    def next(self, number: int, after_word: bool, letter: int) -> tuple[int, bool]:
        """Returns the state after one more letter."""
        derived = self.derived(number, after_word, letter)
        # Where no boundary is left, what came before is all the same.
        return derived, self.is_word[letter] and self.has_boundary[derived]

    def derived(self, number: int, after_word: bool, letter: int) -> int:
        """Returns the derivative: what may follow the letter for the whole to match."""
        key = (number, after_word, letter)
        if key not in self.known:
            self.spend(1)
            self.known[key] = self.derive(number, after_word, letter)
        return self.known[key]

    def derive(self, number: int, after_word: bool, letter: int) -> int:
        before_word = self.is_word[letter]
        match self.nodes[number]:
            case ("characters", letters):
                return EMPTY if letters >> letter & 1 else NOTHING
            case ("boundary",):
                return NOTHING
            case ("concatenation", parts):
                ways = []
                for position, part in enumerate(parts):
                    derived = self.derived(part, after_word, letter)
                    if derived != NOTHING:
                        ways.append(self.concatenation([derived, *parts[position + 1 :]]))
                    if not self.nullable(part, after_word, before_word):
                        break
                return self.union(ways)
            case ("union", parts):
                return self.union([self.derived(part, after_word, letter) for part in parts])
            case ("intersection", parts):
                return self.intersection([self.derived(part, after_word, letter) for part in parts])
            case ("complement", part):
                return self.complement(self.derived(part, after_word, letter))
            case (_, part, least, most):
                # If the part may be empty here, any number of empty ones may come first.
                least = 0 if self.nullable(part, after_word, before_word) else max(least - 1, 0)
                rest = self.repetition(part, least, None if most is None else most - 1)
                return self.concatenation([self.derived(part, after_word, letter), rest])


def _parts(node: tuple) -> tuple[int, ...]:
    kind, *values = node
    if kind in ("concatenation", "union", "intersection"):
        return values[0]
    return (values[0],) if kind in ("complement", "repetition") else ()
