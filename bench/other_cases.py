"""What has no peer: start, idle memory, REST."""

import time
from statistics import median

from bench.git_cases import timed
from bench.material import MODEL
from bench.ours import Modelyard
from bench.stage import Row, Stage
from bench.wire import request


def start(stage: Stage) -> list[Row]:
    """From the command to the first answer, and what an idle worker holds."""
    folder = stage.folder / "start"
    folder.mkdir()
    server = Modelyard(folder)
    seconds = []
    memory = 0
    for _ in range(stage.rounds(5)):
        seconds.append(timed(server.start))
        request(f"{server.url}/healthz")
        time.sleep(2)
        memory = server.memory()
        server.stop()
    server.discard()
    return [
        Row("start, until it answers", "s", median(seconds)),
        Row("idle memory of one worker", "MB", memory / 1e6, bar=120),
    ]


def rest(stage: Stage) -> list[Row]:
    """The REST operations that pages are made of."""
    stage.both("model", stage.material.repository("model", MODEL))
    base = f"{stage.ours.url}/api/v1"
    paths = {
        "REST list of repositories, p50": "/repositories",
        "REST tree, p50": "/repositories/models/ann/model/tree/main/d1",
        "REST raw file, p50": "/repositories/models/ann/model/raw/main/d1/s1/f1",
    }
    return [
        Row(work, "s", median(request(base + path).seconds for _ in range(stage.rounds(100))))
        for work, path in paths.items()
    ]
