"""Actions of a batch answer for uploads in parts, in the two dialects that clients speak.

`multipart` is that of the Hugging Face Hub, as huggingface_hub and its agent `hf lfs-multipart-upload` for
git-lfs take it (src/huggingface_hub/lfs.py, cli/lfs.py). `multipart-basic` is Giftless's
(https://github.com/datopian/giftless/blob/main/docs/source/multipart-spec.md).
"""

from collections.abc import Callable, Mapping

from lfs.part_plan import PartPlan

# In the query of a part's URL: it was stored when the URL was made, so it is worth looking before reading.
STORED = "stored"


def part_path(plan: PartPlan, number: int) -> str:
    """Below `<repository>.git/info/lfs/`, as the other paths here; the caller adds `?link=`."""
    return f"uploads/{plan.upload_id}/parts/{number}"


def complete_path(plan: PartPlan) -> str:
    return f"uploads/{plan.upload_id}/complete"


def abort_path(plan: PartPlan) -> str:
    return f"uploads/{plan.upload_id}/abort"


def hf(
    plan: PartPlan,
    *,
    part: Callable[[int], str],
    complete: str,
    signed: Mapping[int, str],
    expires_in: int,
) -> dict[str, object]:
    """The value of `actions` with `"transfer": "multipart"`; `part(n)` is the link of part n to this server.

    huggingface_hub wants a URL for every part, so those that are stored get one, too, which is answered
    without reading what is sent there. Its agent takes all values of `header` but `chunk_size` for the URLs
    of the parts, in the order of their names, which git-lfs sorts as texts: nothing else may be in there,
    the names have leading zeros, and all values are texts. Clients that care find the numbers of the missing
    parts beside it.
    """
    header = {"chunk_size": str(plan.part_bytes)}
    for number in range(1, plan.count + 1):
        header[f"{number:05}"] = signed.get(number) or _link(plan, number, part)
    upload = {
        "href": complete,
        "header": header,
        "expires_in": expires_in,
        "missing_parts": plan.missing,
    }
    return {"upload": upload}


def giftless(
    plan: PartPlan,
    *,
    part: Callable[[int], str],
    complete: str,
    abort: str,
    verify: str,
    signed: Mapping[int, str],
    expires_in: int,
) -> dict[str, object]:
    """The value of `actions` with `"transfer": "multipart-basic"`: the missing parts alone."""
    parts = [
        {
            "href": signed.get(number) or part(number),
            "method": "PUT",
            "pos": plan.offset_of(number),
            "size": plan.size_of(number),
            "expires_in": expires_in,
        }
        for number in plan.missing
    ]
    return {
        "parts": parts,
        "commit": {"href": complete, "method": "POST", "expires_in": expires_in},
        "abort": {"href": abort, "method": "POST", "expires_in": expires_in},
        "verify": {"href": verify, "expires_in": expires_in},
    }


def _link(plan: PartPlan, number: int, part: Callable[[int], str]) -> str:
    return f"{part(number)}&{STORED}=1" if number in plan.done else part(number)
