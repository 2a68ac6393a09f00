"""Narrowing lists of repositories by what the heads of their default branches say."""

from dataclasses import dataclass, fields

from sqlalchemy import ColumnElement, select

from core.models import Repository, RepositoryFacet, RepositoryHead
from core.texts import checked_text

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """What must be true of a repository; None is everything. Texts are compared in any case, as a whole.

    Attributes:
        dtype: of the weights, or how they are quantised.
        base_model: what it was made from. dataset: what it was trained with.
        min_parameters, max_parameters: inclusive; a repository whose parameters nobody could count has none.
    """

    task: str | None = None
    library: str | None = None
    license: str | None = None
    language: str | None = None
    architecture: str | None = None
    dtype: str | None = None
    base_model: str | None = None
    dataset: str | None = None
    tag: str | None = None
    min_parameters: int | None = None
    max_parameters: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """On `Repository`, for `Repositories.list_visible`.

        Raises:
            Unprocessable: nothing can be called that.
        """
        found: list[ColumnElement[bool]] = []
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, str):
                facet = select(RepositoryFacet.repository_id).where(
                    RepositoryFacet.kind == one.name,
                    RepositoryFacet.value == checked_text(value, one.name, _LONGEST).lower(),
                )
                found.append(Repository.id.in_(facet))
        sizes = []
        if self.min_parameters is not None:
            sizes.append(RepositoryHead.parameters >= self.min_parameters)
        if self.max_parameters is not None:
            sizes.append(RepositoryHead.parameters <= self.max_parameters)
        if sizes:
            found.append(Repository.id.in_(select(RepositoryHead.repository_id).where(*sizes)))
        return found
