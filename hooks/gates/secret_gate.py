"""The gate `secret`: tokens and private keys in text files."""

from typing import Final

from hooks.gates.problem import Problem
from hooks.gates.view import GateView

_REMEDY: Final = (
    "revoke it, because whoever has the history has it; then take it out of every commit that you push"
    " (`git commit --amend`, `git rebase -i`) and push again"
)


class Secrets:
    """Looks into every new text file of up to a megabyte, in every new commit."""

    code = "secret"

    async def findings(self, view: GateView) -> list[Problem]:
        """One for each secret, with its line, and nothing of the secret itself."""
        problems = [
            Problem(f"{blob.path}:{hit.line}", f"has {hit.kind}", _REMEDY, blob=blob.oid)
            for blob, hits in view.brought.secrets
            for hit in hits
        ]
        if left := view.brought.unsearched:
            message = "was not searched for secrets, because there is too much text in this push"
            more = f" (nor were {len(left) - 1} other files)" if len(left) > 1 else ""
            problems.append(Problem(left[0].path, message + more, mild=True))
        return problems
