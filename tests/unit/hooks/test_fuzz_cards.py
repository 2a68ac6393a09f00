import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hooks.formats.card import parse_card
from hooks.formats.parsed import Parsed, Severity
from hooks.formats.source import BytesSource
from tests.support.bounds import bounded
from tests.support.cards import DATASETS, MODELS
from tests.support.parsed_checks import anything, assert_storable, parse_soundly

ten_thousand = settings(
    max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
CARDS = [card.encode() for card in (MODELS | DATASETS).values()]
# Keys that the parser looks for, so that values of all kinds come to stand where they are not expected.
KEYS = """license license_name license_link language tags pipeline_tag task_categories task_ids library_name
    base_model base_model_relation datasets metrics model-index configs dataset_info size_categories name
    results task dataset type args source url value verified data_files split path config_name splits features
    num_examples <<""".split()
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=10)
    | st.sampled_from([2**63, -(2**64), 10**400, "\0", "x" * 5000, "\u202e", "a/b", "mit"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10)
)
DEEP_ALIASES = "a0: &a0 []\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000))
BLOCK = 1_000_000
BOMBS = {
    "billion-laughs": (LAUGHS, "yaml-too-large"),
    "merged-laughs": (MERGES, "yaml-too-large"),
    "aliases-of-aliases": (DEEP_ALIASES, "yaml-too-large"),
    "itself": ("a: &a [*a]", "yaml-recursive"),
    "itself-merged": ("a: &a {<<: *a}", "yaml-recursive"),
    "unknown-alias": ("a: *b", "yaml-syntax"),
    "flow-depth": ("[" * BLOCK, "yaml-too-large"),
    "mapping-depth": ("{a: " * (BLOCK // 4), "yaml-too-large"),
    "block-depth": ("- " * (BLOCK // 2), "yaml-too-large"),
    "complex-keys": ("? " * (BLOCK // 2), "yaml-too-large"),
    "many-values": ("[" + "a," * (BLOCK // 2 - 1) + "]", "yaml-too-large"),
    "too-long": ("a: " + "x" * (2 * BLOCK), "yaml-too-large"),
    "two-documents": ("a: 1\n...\n--- {b: 2}", "yaml-syntax"),
    "python": ("a: !!python/object/apply:os.system [true]", "yaml-tag"),
    "control": ("a: \x01", "yaml-syntax"),
    "no-text": ("\x00" * BLOCK, "yaml-syntax"),
}
# Everything within the limits, and as much of it as they allow.
LARGE = {
    "results": "model-index:\n- name: x\n  results:\n"
    + "  - {task: {type: t}, dataset: {type: d, name: d}, metrics: [{type: m, value: 1}]}\n" * 11_000,
    "metrics": "model-index:\n- name: x\n  results:\n  - task: {type: t}\n    dataset: {type: d, name: d}\n"
    + "    metrics: ["
    + "{type: m, value: 1}, " * 38_000
    + "]\n",
    "bad-results": "model-index:\n" + "- {}\n" * 60_000,
    "licenses": "license: [" + "x, " * 150_000 + "]",
    "near-licenses": "license: [" + ", ".join(f"apache-license-cc-by-{n}.0" for n in range(1000)) + "]",
    "configs": "configs:\n" + "- {data_files: [{split: a, path: [b, c, d]}]}\n" * 15_000,
    "keys": "".join(f"k{number}: v\n" for number in range(80_000)),
    "duplicates": "k: v\n" * 90_000,
    "one-text": "pretty_name: " + "x" * BLOCK,
    "digits": "a: " + "1" * BLOCK,
    "sexagesimal": "a: 1" + ":59" * (BLOCK // 4),
    "underscores": "a: 1" + "_" * BLOCK,
    "anchors": "".join(f"- &a{number} x\n" for number in range(60_000)),
    "aliased-texts": "a: &a " + "x" * 10_000 + "\ntags: [" + "*a, " * 150_000 + "]",
    "quotes": "a: '" + "''" * (BLOCK // 2 - 10) + "'",
    "escapes": 'a: "' + "\\u00e9" * (BLOCK // 7) + '"',
    "empty-lines": "a:" + "\n" * BLOCK,
    "comments": "#\n" * (BLOCK // 2),
}
BODIES = {
    "fences": "---\n" * 500_000,
    "spaces": " " * 2_000_000 + "x",
    "heading": "# " + " " * 2_000_000 + "x",
    "hashes": "# " + "# " * 1_000_000,
    "ticks": "`" * 2_000_000,
    "lines": "\n" * 2_000_000,
    "unclosed": "---\n" + "a: b\n" * 400_000,
    "dashes": "---\nlicense: mit\n" + "--- x\n" * 300_000,
}


def parse(text: str) -> Parsed:
    return bounded(lambda: parse_card(BytesSource(text.encode())))


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_findings(name: str) -> None:
    block, code = BOMBS[name]
    parsed = parse(f"---\n{block}\n---\n")
    assert_storable(parsed.metadata)
    (finding,) = [one for one in parsed.findings if one.code.startswith("yaml-")]
    assert (finding.code, finding.severity) == (code, Severity.ERROR)
    assert finding.line is not None
    assert finding.line >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_metadata_is_read_within_bounds(name: str) -> None:
    parsed = parse(f"---\n{LARGE[name]}\n---\n")
    assert_storable(parsed.metadata)
    assert not [one for one in parsed.findings if one.code.startswith("yaml-too")]


@pytest.mark.slow
@pytest.mark.parametrize("name", BODIES)
def test_long_texts_are_read_within_bounds(name: str) -> None:
    assert_storable(parse(BODIES[name]).metadata)


@pytest.mark.slow
@ten_thousand
@given(anything(CARDS))
def test_any_bytes(data: bytes) -> None:
    parse_soundly(parse_card, data)


@pytest.mark.slow
@ten_thousand
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_any_values(metadata: dict[str, object]) -> None:
    block = yaml.dump(metadata, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), allow_unicode=True)
    parse_soundly(parse_card, f"---\n{block}---\n".encode())


@pytest.mark.slow
@ten_thousand
@given(st.text("-:[]{}&*!|>'\"%@`#,? \n\r\tab01<~.", max_size=60))
def test_any_yaml(block: str) -> None:
    parse_soundly(parse_card, f"---\n{block}\n---\n".encode())
