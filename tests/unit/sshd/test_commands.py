import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.errors import RepositoryNotFound
from core.models import RepositoryType
from core.names import Address
from sshd.commands import MAX_COMMAND_LENGTH, Command, CommandRefused, Service, parse_command

MODEL = Address(RepositoryType.MODEL, "ada", "bert")
DATASET = Address(RepositoryType.DATASET, "ada", "squad")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("git-upload-pack '/ada/bert.git'", Command(Service.UPLOAD_PACK, MODEL)),
        ("git-upload-pack 'ada/bert.git'", Command(Service.UPLOAD_PACK, MODEL)),
        ("git-upload-pack ada/bert", Command(Service.UPLOAD_PACK, MODEL)),
        ('git-upload-pack "/ada/bert"', Command(Service.UPLOAD_PACK, MODEL)),
        ("git-upload-pack '~/ada/bert.git'", Command(Service.UPLOAD_PACK, MODEL)),
        ("git-upload-pack '/~/ada/bert.git'", Command(Service.UPLOAD_PACK, MODEL)),
        ("git-upload-pack '/models/ada/bert.git'", Command(Service.UPLOAD_PACK, MODEL)),
        ("git-upload-pack /Ada/BERT.git", Command(Service.UPLOAD_PACK, MODEL)),
        ("git upload-pack '/ada/bert.git'", Command(Service.UPLOAD_PACK, MODEL)),
        ("git-receive-pack '/ada/bert.git'", Command(Service.RECEIVE_PACK, MODEL)),
        ("git receive-pack 'datasets/ada/squad'", Command(Service.RECEIVE_PACK, DATASET)),
        ("git-receive-pack '/datasets/ada/squad.git'", Command(Service.RECEIVE_PACK, DATASET)),
        ("git-upload-archive '/ada/bert.git'", Command(Service.UPLOAD_ARCHIVE, MODEL)),
        ("git upload-archive ada/bert", Command(Service.UPLOAD_ARCHIVE, MODEL)),
        ("  git-upload-pack   ada/bert  ", Command(Service.UPLOAD_PACK, MODEL)),
    ],
)
def test_takes_what_git_clients_send(line: str, command: Command) -> None:
    assert parse_command(line) == command


@pytest.mark.parametrize(
    "line",
    [
        "",
        "   ",
        "git",
        "sh",
        "bash -c 'git-upload-pack ada/bert'",
        "scp -t /tmp",
        "rsync --server . /",
        "git-shell",
        "git init x",
        "git-upload-pack",
        "git upload-pack",
        "git-upload-pack ada/bert extra",
        "git-upload-pack --strict ada/bert",
        "git-upload-pack --upload-pack=id",
        "git-upload-pack -h",
        "git-upload-pack 'ada/bert'; id",
        "git-upload-pack ada/bert && id",
        "git-upload-pack ada/bert | id",
        "git-upload-pack\tada/bert",
        "git-upload-pack ada/bert\nid",
        "git-upload-pack 'ada/bert\0'",
        "git-upload-pack 'ada/bert",
        "git-upload-pack ada/bert\\",
        "git-upload-pack ada/\x1b[2Jbert",
        "GIT_DIR=/ git-upload-pack ada/bert",
        "/usr/bin/git-upload-pack ada/bert",
        "./git-upload-pack ada/bert",
        "git-upload-pack-evil ada/bert",
        "git git-upload-pack ada/bert",
        "git -c x=y upload-pack ada/bert",
        "git --exec-path=/tmp upload-pack ada/bert",
        "git-http-backend ada/bert",
        "git-daemon ada/bert",
        "git-upload-pack " + "a" * MAX_COMMAND_LENGTH,
    ],
)
def test_refuses_every_other_line(line: str) -> None:
    with pytest.raises(CommandRefused) as caught:
        parse_command(line)
    assert caught.value.message.isprintable()
    assert "id" not in caught.value.message.split()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "''",
        "ada",
        "../etc/passwd",
        "/ada/../bob/bert",
        "ada/..",
        "ada/.git",
        "ada/bert/objects",
        "'ada/bert;id'",
        "'ada/$(id)'",
        "'ada/`id`'",
        "'ada/bert evil'",
        "~root/bert",
        "~git/ada/bert",
        "'ada/be%2e%2ert'",
        "'ada/%2e%2e'",
        "ad\u212a/bert",
        "ada\\\\bert",
        "spaces/ada/bert",
    ],
)
def test_an_impossible_address_is_an_unknown_repository(path: str) -> None:
    with pytest.raises(RepositoryNotFound):
        parse_command(f"git-upload-pack {path}")


@pytest.mark.parametrize(
    "line",
    [
        "git-lfs-authenticate ada/bert.git download",
        "git-lfs-authenticate '/ada/bert.git' upload",
        "git-lfs-transfer ada/bert.git download",
    ],
)
def test_says_that_lfs_comes_later(line: str) -> None:
    with pytest.raises(CommandRefused, match="LFS over SSH is not offered yet"):
        parse_command(line)


WORDS = st.sampled_from(
    [
        "git",
        "git-upload-pack",
        "upload-pack",
        "receive-pack",
        "ada/bert",
        "'",
        '"',
        "\\",
        " ",
        ";",
        "-",
        "~/",
        "\0",
        "$(",
    ]
)


@given(
    st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=8).map(" ".join), st.lists(WORDS).map("".join))
)
@example("git-upload-pack ada/bert")
def test_any_line_is_an_exact_command_or_a_refusal(line: str) -> None:
    try:
        command = parse_command(line)
    except (CommandRefused, RepositoryNotFound):
        return
    # What was accepted says the same when it is spelled plainly: nothing was lost on the way.
    assert parse_command(f"{command.service} {command.address.path}") == command
    assert "ada/bert" in line.lower() or command.address != MODEL
