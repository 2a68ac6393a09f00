"""Uploads one file as huggingface_hub does; run as a program of its own.

    hub_upload.py ENDPOINT OWNER/NAME TOKEN FILE

`HF_HUB_DISABLE_XET=1` must be in the environment: it is read when the package is imported.
"""

import sys

import huggingface_hub
from huggingface_hub import CommitOperationAdd
from huggingface_hub.lfs import lfs_upload, post_lfs_batch_info


def main(endpoint: str, repository: str, token: str, path: str) -> None:
    added = CommitOperationAdd("model.bin", path)
    actions, errors, _ = post_lfs_batch_info(
        upload_infos=[added.upload_info],
        token=token,
        repo_type="model",
        repo_id=repository,
        revision="main",
        endpoint=endpoint,
    )
    if errors:
        raise SystemExit(str(errors))
    lfs_upload(added, actions[0], token=token, endpoint=endpoint)
    print(huggingface_hub.__version__)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(*sys.argv[1:])
