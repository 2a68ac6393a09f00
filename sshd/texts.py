"""Text that came from a client, made safe for one line of a terminal or a log."""


def one_line(text: str, limit: int = 300) -> str:
    """`text` without anything that could start a new line or drive a terminal, cut to `limit`.

    Control characters, line separators, bidirectional overrides and lone surrogates become `?`.
    """
    return "".join(character if character.isprintable() else "?" for character in text[:limit])
