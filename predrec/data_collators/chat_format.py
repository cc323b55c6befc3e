"""How a record becomes text around its views: the tokenizer's chat template, or plain text.

A rendered turn is always `before + content + after`; training, generation and analysis all take it from here.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from .two_views import TwoViews

DATE = "26 Jul 2024"
"""What templates that print today's date are told, so that prompts do not change from one day to the next."""

SENTINELS = ("qzvsystemvzq", "qzvuservzq", "qzvassistantvzq")
"""Contents that occur in no template, to find out what a template puts around contents."""


@dataclass(frozen=True)
class Turn:
    """A rendered piece: `before + content + after`."""

    before: str
    content: str
    after: str = ""


class Format(Protocol):
    """What renders records.

    `generation` gives the prompt as `before`, the completion as `content`, and as `after` what follows it; `view`
    gives one view on its own.
    """

    def generation(self, record: TwoViews) -> Turn: ...

    def view(self, content: str, side: Literal["text", "code"]) -> Turn: ...


@dataclass(frozen=True)
class PlainFormat:
    """Text, separator, code; views are bare.

    Args:
        separator (`str`, defaults to a line break): Between text and code.
        bos (`str`, defaults to `""`): What the tokenizer begins every sequence with.
    """

    separator: str = "\n"
    bos: str = ""

    def generation(self, record: TwoViews) -> Turn:
        return Turn(self.bos + record.text + self.separator, record.code)

    def view(self, content: str, side: Literal["text", "code"]) -> Turn:
        return Turn(self.bos, content)


class ChatFormat:
    """The chat template of a tokenizer.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): With a chat template.
        view_prefix (`"template"` or `"role_only"`, defaults to `"template"`):
            What stands before a view: all that the template puts before a conversation that begins with it, such as
            an automatic system turn, or only the header of its role.
        code_role (`"auto"`, `"assistant"` or `"user"`, defaults to `"auto"`):
            Role of the code view. `auto` is the assistant, unless the template refuses to begin with it.

    Raises:
        UserError: If the template refuses an ordinary conversation, or leaves contents out.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        view_prefix: Literal["template", "role_only"] = "template",
        code_role: Literal["auto", "assistant", "user"] = "auto",
    ):
        self.tokenizer = tokenizer
        asked, answered, again = SENTINELS
        self.has_system_role = self._accepts([("system", asked), ("user", answered)])
        two_turns = self._render([("user", asked), ("assistant", answered)])
        start, header, self.assistant_tail = _around(two_turns, asked, answered)
        prompt = self._render([("user", asked)], add_generation_prompt=True)
        # What some templates put before the last answer, such as an empty thought: of the prompt, not of the answer.
        self.assistant_lead = two_turns.partition(answered)[0].removeprefix(prompt)
        accepted = self._accepts([("assistant", answered)])
        if code_role == "assistant" and not accepted:
            raise UserError(
                "`code_role` assistant: the chat template refuses to begin with the assistant. Use `user`."
            )
        if code_role == "auto":
            code_role = "assistant" if accepted else "user"
        self.code_role = code_role
        self.views = {"text": self._alone("user"), "code": self._alone(code_role)}
        if view_prefix == "role_only":
            _, next_header, _ = _around(
                self._render([("user", asked), ("assistant", answered), ("user", again)]), answered, again
            )
            bos = tokenizer.bos_token if tokenizer.bos_token and start.startswith(tokenizer.bos_token) else ""
            headers = {
                "user": bos + next_header.removeprefix(self.assistant_tail),
                "assistant": bos + header.removeprefix(self.views["text"].after),
            }
            roles = {"text": "user", "code": code_role}
            self.views = {side: replace(self.views[side], before=headers[role]) for side, role in roles.items()}
        self.strips = f" {asked}" not in self._render([("user", f" {asked}")])

    def generation(self, record: TwoViews) -> Turn:
        """Renders prompt, completion and what follows it; a template without system turns gets one in the user's."""
        turns = [("user", record.text)]
        if record.system and self.has_system_role:
            turns.insert(0, ("system", record.system))
        elif record.system:
            turns = [("user", f"{record.system}\n\n{record.text}")]
        prompt = self._render(turns, add_generation_prompt=True) + self.assistant_lead
        whole = self._render([*turns, ("assistant", record.code)])
        if not whole.startswith(prompt) or not whole.endswith(self.assistant_tail):
            raise UserError(
                "`chat_format`: the chat template's generation prompt is not the beginning of the answered "
                "conversation, so training and generation would see different prompts. Use `--chat_format plain`."
            )
        return Turn(prompt, whole[len(prompt) : len(whole) - len(self.assistant_tail)], self.assistant_tail)

    def view(self, content: str, side: Literal["text", "code"]) -> Turn:
        return replace(self.views[side], content=content.strip() if self.strips else content)

    def _alone(self, role: str) -> Turn:
        before, _, after = self._render([(role, SENTINELS[0])]).partition(SENTINELS[0])
        return Turn(before, "", after)

    def _render(self, turns: list[tuple[str, str]], **options: Any) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, date_string=DATE, **options)
        except (TemplateError, ValueError, TypeError) as error:
            roles = ", ".join(role for role, _ in turns)
            raise UserError(f"`chat_format`: the chat template refuses the turns {roles}: {error}") from error

    def _accepts(self, turns: list[tuple[str, str]]) -> bool:
        try:
            rendered = self._render(turns)
        except UserError:
            return False
        return all(content in rendered for _, content in turns)


def _around(rendered: str, first: str, second: str) -> tuple[str, str, str]:
    """Returns what is before `first`, between `first` and `second`, and after `second`."""
    if first not in rendered or second not in rendered:
        raise UserError("`chat_format`: the chat template leaves contents out. Use `--chat_format plain`.")
    before, _, rest = rendered.partition(first)
    between, _, after = rest.partition(second)
    return before, between, after


def find_format(
    tokenizer: PreTrainedTokenizerBase,
    name: Literal["auto", "chat", "plain"] = "auto",
    separator: str = "\n",
    **options: Any,
) -> Format:
    """Returns the format of this name; `auto` is the chat template where there is one.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Of the model.
        name (`str`, defaults to `"auto"`): `auto`, `chat` or `plain`.
        separator (`str`, defaults to a line break): Between text and code in the plain format.
        options: For [`ChatFormat`].

    Raises:
        UserError: If `chat` is asked for and the tokenizer has no chat template.
    """
    if name == "chat" and not tokenizer.chat_template:
        raise UserError("`chat_format` chat: this tokenizer has no chat template. Use `--chat_format plain`.")
    if name == "plain" or not tokenizer.chat_template:
        return PlainFormat(separator, _bos_added_by(tokenizer))
    return ChatFormat(tokenizer, **options)


def _bos_added_by(tokenizer: PreTrainedTokenizerBase) -> str:
    """Returns the token that the tokenizer puts before a text by itself, or nothing."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    begins = whole != bare and whole[:1] == [tokenizer.bos_token_id]
    return tokenizer.bos_token if begins else ""
