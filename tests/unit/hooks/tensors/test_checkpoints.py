"""Which files are one model, and which models of two revisions are compared."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.tensors.checkpoints import checkpoints, pairs
from hooks.version import VersionFile


def files(contents: Mapping[str, str]) -> list[VersionFile]:
    """Of contents by path."""
    kinds = {"safetensors": "safetensors", "gguf": "gguf", "json": "config"}
    return [VersionFile(path, one, 10, kinds[path.rpartition(".")[2]]) for path, one in contents.items()]


def names(base: Mapping[str, str], head: Mapping[str, str]) -> list[tuple[str | None, str | None]]:
    found = pairs(checkpoints(files(base)), checkpoints(files(head)))
    return [(before.name if before else None, after.name if after else None) for before, after in found]


def test_shards_are_one() -> None:
    found = checkpoints(
        files(
            {
                "model-00002-of-00002.safetensors": "b",
                "config.json": "c",
                "model-00001-of-00002.safetensors": "a",
                "vae/model.fp16-00001-of-00001.safetensors": "d",
                "x-00001-of-00003.gguf": "e",
                "model-1-of-2.safetensors": "f",
            }
        )
    )
    assert [(one.name, one.family, one.kind, one.content, one.bytes) for one in found] == [
        ("model-*-of-00002.safetensors", "model.safetensors", "safetensors", ("a", "b"), 20),
        ("model-1-of-2.safetensors", "model-1-of-2.safetensors", "safetensors", ("f",), 10),
        ("vae/model.fp16-*-of-00001.safetensors", "vae/model.fp16.safetensors", "safetensors", ("d",), 10),
        ("x-*-of-00003.gguf", "x.gguf", "gguf", ("e",), 10),
    ]


def test_what_lies_beside_shards_is_another_one() -> None:
    found = checkpoints(
        files(
            {
                "model.safetensors": "a",
                "model-00001-of-00001.safetensors": "b",
                "model-00001-of-00002.safetensors": "c",
            }
        )
    )
    assert [one.files[0].digest for one in found] == ["b", "c", "a"]


SHARD = "model-00001-of-00001.safetensors"
STAR = "model-*-of-00001.safetensors"


@pytest.mark.parametrize(
    ("base", "head", "expected"),
    [
        ({"a.gguf": "1"}, {"a.gguf": "1"}, []),
        ({"a.gguf": "1"}, {"b.gguf": "1"}, []),
        ({"a.gguf": "1"}, {"a.gguf": "2"}, [("a.gguf", "a.gguf")]),
        ({"a.gguf": "1"}, {"b.gguf": "2"}, [("a.gguf", "b.gguf")]),
        ({"a.gguf": "1"}, {"a.safetensors": "2"}, [("a.gguf", None), (None, "a.safetensors")]),
        ({}, {"a.gguf": "1"}, [(None, "a.gguf")]),
        # A choice is none.
        (
            {"a.gguf": "1", "b.gguf": "2"},
            {"c.gguf": "3"},
            [("a.gguf", None), ("b.gguf", None), (None, "c.gguf")],
        ),
        # What only moved leaves the rest without a choice, whatever the order.
        ({"a.gguf": "1", "b.gguf": "2"}, {"c.gguf": "2", "d.gguf": "3"}, [("a.gguf", "d.gguf")]),
        ({"a.gguf": "2", "b.gguf": "1"}, {"c.gguf": "2", "d.gguf": "3"}, [("b.gguf", "d.gguf")]),
        # A copy of the old one, kept.
        ({"a.gguf": "1"}, {"a.gguf": "2", "b.gguf": "1"}, [("a.gguf", "a.gguf"), (None, "b.gguf")]),
        # Exchanged.
        (
            {"a.gguf": "1", "b.gguf": "2"},
            {"a.gguf": "2", "b.gguf": "1"},
            [("a.gguf", "a.gguf"), ("b.gguf", "b.gguf")],
        ),
        ({"model.safetensors": "1"}, {SHARD: "2"}, [("model.safetensors", STAR)]),
        (
            {"model.safetensors": "1"},
            {SHARD: "2", "adapter.safetensors": "3"},
            [(None, "adapter.safetensors"), ("model.safetensors", STAR)],
        ),
        ({"model.safetensors": "1", SHARD: "2"}, {SHARD: "3"}, [(STAR, STAR), ("model.safetensors", None)]),
    ],
)
def test_what_is_compared(
    base: Mapping[str, str], head: Mapping[str, str], expected: list[tuple[str | None, str | None]]
) -> None:
    assert names(base, head) == expected


_PATHS = st.sampled_from(
    [f"{name}.{end}" for name in ("a", "b", "a-00001-of-00001") for end in ("gguf", "safetensors")]
)
_REVISIONS = st.dictionaries(_PATHS, st.sampled_from("123"))


@given(_REVISIONS, _REVISIONS)
def test_either_way_round(base: Mapping[str, str], head: Mapping[str, str]) -> None:
    there, back = names(base, head), names(head, base)
    assert {(after, before) for before, after in back} == set(there)
    assert len(set(there)) == len(there)
    olds = [before for before, _ in there if before]
    news = [after for _, after in there if after]
    assert len(set(olds)) == len(olds)
    assert len(set(news)) == len(news)
    # What is not compared has its bytes on the other side.
    for name, digest in base.items():
        starred = name.replace("-00001-", "-*-")
        assert starred in olds or digest in head.values()
