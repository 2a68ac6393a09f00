"""What can be wrong with understanding a push."""

from core.errors import Unavailable
from hooks.formats.source import SourceUnreadable


class ContentMissing(SourceUnreadable):
    """Nor will the bytes be had later: the repository has no such object, or it cannot be read from Git."""


class ContentUnavailable(Unavailable):
    """A file of the repository could not be read just now; try again."""

    code = "content_unavailable"
