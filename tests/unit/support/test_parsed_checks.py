import json

import pytest

from tests.support.parsed_checks import escapes_nul


@pytest.mark.parametrize(
    ("text", "has"),
    [("\0", True), ("a\\\0", True), ("\\u0000", False), ("\\\\u0000", False), ("u0000", False)],
)
def test_escapes_of_nul(text: str, has: bool) -> None:
    assert escapes_nul(json.dumps(text)) is has
