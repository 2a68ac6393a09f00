"""Import, export, fsck and gc, held against what the real git says."""

import shutil
from pathlib import Path

import pytest

from tests.support.git import Git
from tests.support.program import Program


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Git:
    """A repository with two branches, an annotated tag, and a HEAD of another name than ours."""
    git = Git(tmp_path_factory.mktemp("source"))
    git("init", "-q", "-b", "trunk")
    for number in range(3):
        (git.cwd / "file").write_text(f"{number}\n" * 100)
        git("add", ".")
        git("commit", "-q", "-m", f"change {number}")
    git("tag", "-a", "v1", "-m", "first")
    git("branch", "side", "HEAD~1")
    return git


def refs(git: Git) -> str:
    return git("for-each-ref", "--format=%(objectname) %(*objectname) %(refname)")


def test_what_was_imported_comes_out_again(program: Program, source: Git, tmp_path: Path) -> None:
    report = program.json("repo", "import", "alice/imported", source.cwd, "--public")
    assert (report["path"], report["refs"], report["refused"]) == ("alice/imported", 3, [])
    shown = program.json("repo", "show", "alice/imported")
    assert (shown["visibility"], shown["default_branch"]) == ("public", "trunk")

    target = tmp_path / "out.git"
    exported = program.json("repo", "export", "alice/imported", target)
    assert (exported["refs"], exported["directory"]) == (3, str(target))
    copy = Git(target)
    copy("fsck", "--strict")
    assert refs(copy) == refs(source)
    clone = Git(tmp_path)
    clone("clone", "-q", "out.git", "clone")
    assert (tmp_path / "clone" / "file").read_text() == (source.cwd / "file").read_text()

    program.run("repo", "export", "alice/imported", target).refused("exists already")
    assert program.json("repo", "import", "alice/imported", source.cwd)["refs"] == 0


def test_an_import_into_an_empty_repository_follows_its_head(program: Program, source: Git) -> None:
    program.done("repo", "create", "alice/waiting")
    program.done("repo", "import", "alice/waiting", source.cwd)
    assert program.json("repo", "show", "alice/waiting")["default_branch"] == "trunk"


def test_an_import_that_fails_leaves_nothing(program: Program, source: Git, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    program.run("repo", "import", "alice/failed", tmp_path / "empty").refused("cannot import")
    program.run("repo", "import", "alice/failed", "https://127.0.0.1:1/x.git").refused("cannot import")
    program.run("repo", "import", "alice/failed", "--upload-pack=touch x").refused("No such", status=2)
    program.run("repo", "import", "alice/failed", source.cwd, "--object-format", "sha256").refused("import")
    program.run("repo", "import", "alice/..", source.cwd).refused("a repository name has")
    program.run("repo", "show", "alice/failed").refused("no such repository")


def test_an_export_that_cannot_be_written(program: Program, source: Git, tmp_path: Path) -> None:
    program.done("repo", "import", "alice/export-fails", source.cwd)
    (tmp_path / "file").write_text("")
    program.run("repo", "export", "alice/export-fails", tmp_path / "file" / "x").refused("cannot write")
    program.run("repo", "export", "alice/nowhere", tmp_path / "x").refused("no such repository")


def test_fsck_and_doctor_find_a_missing_pack(untouched: Program, source: Git) -> None:
    untouched.done("user", "create", "alice", "--no-password")
    untouched.done("repo", "import", "alice/sound", source.cwd)
    untouched.done("repo", "import", "datasets/alice/damaged", source.cwd)
    assert untouched.done("repo", "fsck").out == "checked 2, all sound\n"
    assert untouched.json("repo", "fsck", "alice/sound") == []

    assert untouched.data is not None
    identity = untouched.json("repo", "show", "datasets/alice/damaged")["id"]
    shutil.rmtree(untouched.data / "objects" / "data" / "git" / identity)
    outcome = untouched.run("repo", "fsck", "--json")
    assert outcome.status == 1
    assert outcome.err == "modelyard: 1 of 2 repositories are damaged\n"
    assert {finding["repository"] for finding in outcome.json} == {"datasets/alice/damaged"}
    assert all(finding["problem"] and finding["remedy"] for finding in outcome.json)
    assert untouched.run("repo", "fsck", "alice/sound").status == 0

    diagnosis = untouched.run("doctor", "--json")
    assert diagnosis.status == 1
    assert diagnosis.err == "modelyard: 1 error found\n"
    errors = [finding for finding in diagnosis.json if finding["level"] == "error"]
    assert [finding["check"] for finding in errors] == ["packs"]
    assert "datasets/alice/damaged" in errors[0]["message"]


def test_gc_repacks_and_sweeps(program: Program, source: Git, tmp_path: Path) -> None:
    program.done("repo", "import", "alice/collected", source.cwd)
    git = Git(tmp_path)
    git("clone", "-q", str(source.cwd), "work")
    work = Git(tmp_path / "work")
    (work.cwd / "more").write_text("more\n")
    work("add", ".")
    work("commit", "-q", "-m", "more")
    program.done("repo", "import", "alice/collected", work.cwd)

    report = program.json("gc", "--repo", "alice/collected", "--full")
    assert report["failed"] == []
    assert [one["path"] for one in report["repacked"]] == ["alice/collected"]
    assert report["repacked"][0]["packs_after"] < report["repacked"][0]["packs_before"]
    assert program.done("gc").out.startswith("repacked ")
    program.done("repo", "fsck", "alice/collected")
    program.run("gc", "--repo", "alice/nowhere").refused("no such repository")
    program.run("gc", "--prune").refused("--full", status=2)
