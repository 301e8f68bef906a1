"""Text to filter.

    expression  = alternative { "or" alternative }
    alternative = condition { [ "and" ] condition }
    condition   = { "not" } ( "(" expression ")" | word )
    word        = NAME ":" VALUE | NAME ( "<" | "<=" | ">" | ">=" | "=" ) VALUE | VALUE

Blanks separate. Between quotes (' or ") every character stands for itself.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final, NoReturn

from mitml4.dataclass import dataclass
from mitml4.errors import UsageError
from mitml4.filter.expression import And, Condition, Filter, Node, Not, Or
from mitml4.filter.patterns import Letter, Letters, literal
from mitml4.filter.words import BARE, COMPARISONS, WORDS, Test
from mitml4.printable import printable

__all__ = ["FilterError", "parse_filter"]

_MAX_DEPTH: Final = 50
"""Brackets within brackets."""
_OPERATORS: Final = ("and", "or", "not")
_SIGNS: Final = "!<>=~&|"
_SIGNS_HINT: Final = (
    "write a or b, not port:443, port>443 without blanks; quote what is to be searched for"
)


class FilterError(UsageError):
    """A wrong expression. `at`: the place of the fault in it."""

    def __init__(self, message: str, expression: str, at: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "docs/filter.md describes the language")
        self.at = at
        before = printable(expression[:at])
        self.excerpt = (f"  {printable(expression)}", f"  {' ' * _cells(before)}^")


def _cells(text: str) -> int:
    """The columns that a text takes on a terminal."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def parse_filter(text: str) -> Filter:
    """Raises FilterError."""
    return Filter(text, _Parser(text, _tokens(text)).whole())


@dataclass(frozen=True, slots=True)
class _Token:
    """A bracket, or a word."""

    at: int
    letters: Letters

    def is_plain(self, text: str) -> bool:
        """Whether it is this bracket or operator, unquoted."""
        return literal(self.letters).lower() == text and not any(
            letter.is_quoted for letter in self.letters
        )


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    word: list[Letter] = []
    start: int | None = None
    quote: Letter | None = None

    def end_word() -> None:
        nonlocal word, start
        if start is not None:
            tokens.append(_Token(start, word))
        word, start = [], None

    for at, char in enumerate(text):
        if quote:
            if char == quote.char:
                quote = None
            else:
                word.append(Letter(char, at, is_quoted=True))
        elif char in "\"'":
            quote = Letter(char, at)
            start = at if start is None else start
        elif char.isspace():
            end_word()
        elif char in "()":
            end_word()
            tokens.append(_Token(at, [Letter(char, at)]))
        else:
            start = at if start is None else start
            word.append(Letter(char, at))
    if quote:
        raise FilterError("the quote is not closed", text, quote.at)
    end_word()
    return tokens


class _Parser:
    """Recursive descent over the tokens of a text."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._expression()
        if self._token:
            self._fail("this bracket closes nothing")
        return node

    @property
    def _token(self) -> _Token | None:
        """The next token."""
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, text: str) -> bool:
        """Skip the next token if it is this one."""
        found = self._token is not None and self._token.is_plain(text)
        self._at += found
        return found

    def _expression(self) -> Node:
        parts = [self._alternative()]
        while self._take("or"):
            parts.append(self._alternative())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _alternative(self) -> Node:
        parts = [self._condition()]
        while (token := self._token) and not (token.is_plain("or") or token.is_plain(")")):
            self._take("and")
            parts.append(self._condition())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _condition(self) -> Node:
        is_negated = False
        while self._take("not"):
            is_negated = not is_negated
        node = self._bracket() if self._take("(") else self._word()
        return Not(node) if is_negated else node

    def _bracket(self) -> Node:
        opened = self._tokens[self._at - 1].at
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail(f"there are more than {_MAX_DEPTH} brackets within one another", opened)
        node = self._expression()
        if not self._take(")"):
            self._fail("this bracket is not closed", opened)
        self._depth -= 1
        return node

    def _word(self) -> Node:
        token = self._token
        if token is None or any(map(token.is_plain, (*_OPERATORS, ")"))):
            self._fail("the filter is empty" if not self._tokens else "a condition is missing here")
        self._at += 1
        name = literal(token.letters[: _name_length(token.letters)]).lower()
        sign = _sign(token.letters[len(name) :])
        return Condition(self._test(token), name if sign and name in WORDS else "", token.at)

    def _test(self, token: _Token) -> Test:
        """The test of a word. A name of a word has letters only: `www.example:443` and `https://…`
        are searched for."""
        letters = token.letters
        name = literal(letters[: _name_length(letters)])
        rest = letters[len(name) :]
        sign = _sign(rest) if name else ""
        if not sign or (sign == ":" and literal(rest).startswith("://")):
            self._refuse_other_signs(letters, name)
            return self._made(BARE.make, letters, token.at) if letters else self._missing(token)
        word = WORDS.get(name.lower())
        if word is None and sign == ":":
            hint = f"the words are {', '.join(WORDS)}; quote what is to be searched for"
            self._fail(f"there is no word {name}:", token.at, hint)
        if word is None:
            return self._made(BARE.make, letters, token.at)
        value = rest[len(sign) :]
        if not value:
            self._fail(f"there is no value after {name}{sign}", rest[len(sign) - 1].at + 1)
        if sign == ":":
            return self._made(word.make, value, value[0].at)
        if (compare := word.compare) is None:
            self._fail(f"{name} has no order: {name}:…", rest[0].at)
        return self._made(lambda letters: compare(sign, literal(letters)), value, value[0].at)

    def _refuse_other_signs(self, letters: Letters, name: str) -> None:
        """A word without a name is searched for, but not what is meant as a condition:
        `port!=443`, `port > 443`, `!host:a`, `a && b`."""
        signs = [letter.at for letter in letters if letter.char in _SIGNS and not letter.is_quoted]
        begins = literal(letters)[:1] in ("!", "-") and _is_condition(letters[1:])
        follows = name.lower() in WORDS and letters[len(name) : len(name) + 1]
        if follows and follows[0].at in signs:
            self._fail(f"{name} is followed by a colon or a comparison", follows[0].at, _SIGNS_HINT)
        if letters and (len(signs) == len(letters) or begins):
            self._fail(f"{letters[0].char} has no meaning here", letters[0].at, _SIGNS_HINT)

    def _made(self, make: Callable[[Letters], Test], value: Letters, at: int) -> Test:
        try:
            return make(value)
        except ValueError as error:
            self._fail(str(error), at)

    def _missing(self, token: _Token) -> NoReturn:
        self._fail("there is nothing between the quotes", token.at)

    def _fail(self, message: str, at: int | None = None, hint: str | None = None) -> NoReturn:
        """At a place, or else at the next token."""
        if at is None:
            at = self._token.at if self._token else len(self._text)
        raise FilterError(message, self._text, at, hint)


def _name_length(letters: Letters) -> int:
    """How many ASCII letters it begins with that are not quoted."""
    for length, letter in enumerate(letters):
        if letter.is_quoted or not (letter.char.isascii() and letter.char.isalpha()):
            return length
    return len(letters)


def _is_condition(letters: Letters) -> bool:
    """Whether it begins with the name of a word and a colon or a comparison."""
    length = _name_length(letters)
    return literal(letters[:length]).lower() in WORDS and bool(_sign(letters[length:]))


def _sign(letters: Letters) -> str:
    """The colon or the comparison that it begins with, or nothing."""
    start = "".join(letter.char for letter in letters[:2] if not letter.is_quoted)
    return next((sign for sign in (":", *COMPARISONS) if start.startswith(sign)), "")
