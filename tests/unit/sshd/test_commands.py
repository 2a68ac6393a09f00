import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.errors import RepositoryNotFound
from core.models import RepositoryType
from core.names import Address
from lfs.batch import Operation
from sshd.commands import MAX_COMMAND_LENGTH, Command, CommandRefused, Service, parse_command

MODEL = Address(RepositoryType.MODEL, "ada", "bert")
OID = "ab" * 32
UPLOAD, DOWNLOAD = Operation.UPLOAD, Operation.DOWNLOAD
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
        ("git-lfs-authenticate ada/bert.git download", Command(Service.LFS_AUTHENTICATE, MODEL, DOWNLOAD)),
        ("git-lfs-authenticate '/ada/bert.git' upload", Command(Service.LFS_AUTHENTICATE, MODEL, UPLOAD)),
        (f"git-lfs-authenticate ada/bert upload {OID}", Command(Service.LFS_AUTHENTICATE, MODEL, UPLOAD)),
        ("git-lfs-transfer '~/datasets/ada/squad' upload", Command(Service.LFS_TRANSFER, DATASET, UPLOAD)),
        ("git-lfs-transfer /ada/bert.git download", Command(Service.LFS_TRANSFER, MODEL, DOWNLOAD)),
        ("git lfs-transfer ada/bert download", Command(Service.LFS_TRANSFER, MODEL, DOWNLOAD)),
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
        "git-upload-pack ada/bert upload",
        "git-lfs-transfer",
        "git-lfs-transfer ada/bert",
        "git-lfs-transfer upload",
        "git-lfs-transfer upload ada/bert",
        "git-lfs-transfer ada/bert lock",
        "git-lfs-transfer ada/bert UPLOAD",
        "git-lfs-transfer ada/bert upload download",
        f"git-lfs-transfer ada/bert upload {OID}",
        "git-lfs-transfer --help upload",
        "git-lfs-authenticate ada/bert",
        "git-lfs-authenticate ada/bert upload x",
        f"git-lfs-authenticate ada/bert {OID} upload",
        f"git-lfs-authenticate ada/bert upload {OID.upper()}",
        f"git-lfs-authenticate ada/bert upload {OID} {OID}",
        "git-lfs-authenticate ada/bert 'upload; id'",
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


WORDS = st.sampled_from(
    [
        "git",
        "git-upload-pack",
        "upload-pack",
        "receive-pack",
        "git-lfs-transfer",
        "lfs-authenticate",
        "upload",
        "download",
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
    plain = f"{command.service} {command.address.path} {command.operation or ''}"
    assert parse_command(plain) == command
    assert "ada/bert" in line.lower() or command.address != MODEL
