"""Who may do what, as one table: the tests hold every face to it, and `docs/permissions.md` is made from it.

`python -m tests.support.permission_matrix` writes the page anew.
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from core.access import Permission
from core.models import Visibility

PAGE = Path("docs/permissions.md")


class Subject(StrEnum):
    """Who asks. Roles are of the user; a token acts for the owner."""

    ANONYMOUS = "anonymous"
    STRANGER = "stranger"
    READER = "collaborator: read"
    WRITER = "collaborator: write"
    ADMIN = "collaborator: admin"
    OWNER = "owner"
    ORGANISATION_READ = "organisation: read"
    ORGANISATION_WRITE = "organisation: write"
    ORGANISATION_OWNER = "organisation: owner"
    SITE_ADMIN = "site administrator"
    DEPLOY_KEY_READ = "deploy key: read-only"
    DEPLOY_KEY_WRITE = "deploy key: read-write"
    DEPLOY_KEY_ELSEWHERE = "deploy key of another repository"
    TOKEN_READ = "owner's token: read"
    TOKEN_WRITE = "owner's token: write"
    TOKEN_ADMIN = "owner's token: admin"
    TOKEN_RESTRICTED = "owner's write token for this repository"
    TOKEN_ELSEWHERE = "owner's write token for another repository"
    SUSPENDED = "suspended owner"


class Outcome(StrEnum):
    """What a subject is told. Each face has its own words for it."""

    OK = "ok"
    AUTH = "auth"
    MISSING = "missing"
    DENIED = "denied"


class Case(NamedTuple):
    """One cell of the table."""

    subject: Subject
    visibility: Visibility
    permission: Permission
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.subject}-{self.visibility}-{self.permission}"


# Per visibility: read, write, admin.
TABLE: dict[Subject, dict[Visibility, str]] = {
    Subject.ANONYMOUS: {Visibility.PRIVATE: "auth auth auth", Visibility.PUBLIC: "ok auth auth"},
    Subject.STRANGER: {
        Visibility.PRIVATE: "missing missing missing",
        Visibility.PUBLIC: "ok denied denied",
    },
    Subject.READER: {Visibility.PRIVATE: "ok denied denied", Visibility.PUBLIC: "ok denied denied"},
    Subject.WRITER: {Visibility.PRIVATE: "ok ok denied", Visibility.PUBLIC: "ok ok denied"},
    Subject.ADMIN: {Visibility.PRIVATE: "ok ok ok", Visibility.PUBLIC: "ok ok ok"},
    Subject.OWNER: {Visibility.PRIVATE: "ok ok ok", Visibility.PUBLIC: "ok ok ok"},
    Subject.ORGANISATION_READ: {
        Visibility.PRIVATE: "ok denied denied",
        Visibility.PUBLIC: "ok denied denied",
    },
    Subject.ORGANISATION_WRITE: {Visibility.PRIVATE: "ok ok denied", Visibility.PUBLIC: "ok ok denied"},
    Subject.ORGANISATION_OWNER: {Visibility.PRIVATE: "ok ok ok", Visibility.PUBLIC: "ok ok ok"},
    Subject.SITE_ADMIN: {Visibility.PRIVATE: "ok ok ok", Visibility.PUBLIC: "ok ok ok"},
    Subject.DEPLOY_KEY_READ: {
        Visibility.PRIVATE: "ok denied denied",
        Visibility.PUBLIC: "ok denied denied",
    },
    Subject.DEPLOY_KEY_WRITE: {Visibility.PRIVATE: "ok ok denied", Visibility.PUBLIC: "ok ok denied"},
    Subject.DEPLOY_KEY_ELSEWHERE: {
        Visibility.PRIVATE: "missing missing missing",
        Visibility.PUBLIC: "missing missing missing",
    },
    Subject.TOKEN_READ: {Visibility.PRIVATE: "ok denied denied", Visibility.PUBLIC: "ok denied denied"},
    Subject.TOKEN_WRITE: {Visibility.PRIVATE: "ok ok denied", Visibility.PUBLIC: "ok ok denied"},
    Subject.TOKEN_ADMIN: {Visibility.PRIVATE: "ok ok ok", Visibility.PUBLIC: "ok ok ok"},
    Subject.TOKEN_RESTRICTED: {Visibility.PRIVATE: "ok ok denied", Visibility.PUBLIC: "ok ok denied"},
    Subject.TOKEN_ELSEWHERE: {
        Visibility.PRIVATE: "missing missing missing",
        Visibility.PUBLIC: "ok denied denied",
    },
    Subject.SUSPENDED: {Visibility.PRIVATE: "auth auth auth", Visibility.PUBLIC: "auth auth auth"},
}

_OPERATIONS = {
    Permission.READ: (
        "clone, fetch, `git archive`, read files, history, comparisons, archives, large files, metadata, "
        "tensors"
    ),
    Permission.WRITE: (
        "push, commit, create and delete branches and tags, upload large files, lock paths; see rules and "
        "what they asked for"
    ),
    Permission.ADMIN: (
        "change settings, move and delete the repository; manage collaborators, deploy keys, branch "
        "rules, rules about runs, and webhooks with what they were sent; see the trash, unlock what others "
        "locked"
    ),
}

_MEANING = {
    Outcome.OK: "allowed",
    Outcome.AUTH: "asked to log in: 401 over HTTP; over SSH the key is refused",
    Outcome.MISSING: "told that there is no such repository: 404, whether or not there is one",
    Outcome.DENIED: "told what is missing: 403",
}


def cases() -> Iterator[Case]:
    """Every cell of the table."""
    for subject, row in TABLE.items():
        for visibility, outcomes in row.items():
            for permission, outcome in zip(Permission, outcomes.split(), strict=True):
                yield Case(subject, visibility, permission, Outcome(outcome))


def render() -> str:
    """The page, in Markdown."""
    columns = [(visibility, permission) for visibility in Visibility for permission in Permission]
    cells = {(case.subject, case.visibility, case.permission): case.outcome for case in cases()}
    lines = [
        "# Who may do what",
        "",
        "Made from `tests/support/permission_matrix.py`, which the tests hold every face to.",
        "Do not edit: `python -m tests.support.permission_matrix` writes this page.",
        "",
        "| An operation | needs |",
        "|---|---|",
        *(f"| {operations} | `{permission}` |" for permission, operations in _OPERATIONS.items()),
        "",
        "| The answer | means |",
        "|---|---|",
        *(f"| {outcome} | {meaning} |" for outcome, meaning in _MEANING.items()),
        "",
        "| | "
        + " | ".join(f"{visibility}: {_short(permission)}" for visibility, permission in columns)
        + " |",
        "|---" * (len(columns) + 1) + "|",
        *(
            f"| {subject} | " + " | ".join(cells[subject, *column] for column in columns) + " |"
            for subject in Subject
        ),
        "",
        "With `[auth] anonymous_read = false` nobody reads a public repository without logging in, nor does",
        "a token for another repository. A protected branch may refuse a push that this table allows.",
        "",
    ]
    return "\n".join(lines)


def _short(permission: Permission) -> str:
    return permission.partition(":")[2]


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
