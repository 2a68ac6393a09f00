"""Free text from outside: what may be stored and shown again."""

import unicodedata

from core.errors import Unprocessable

_OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def checked_text(text: str, what: str, limit: int, *, lines: bool = False) -> str:
    """Returns `text` without the space around it.

    Raises:
        Unprocessable: it is longer than `limit`, or holds control characters (line breaks and tabs pass
            with `lines`), bidirectional overrides or lone surrogates, which no database stores.
    """
    text = text.strip()
    if len(text) > limit:
        raise Unprocessable(f"the {what} is longer than {limit} characters", field=what)
    allowed = "\n\r\t" if lines else ""
    if any(_is_hostile(character) for character in text if character not in allowed):
        raise Unprocessable(f"the {what} holds control characters", field=what)
    return text


def _is_hostile(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs"} or character in _OVERRIDES
