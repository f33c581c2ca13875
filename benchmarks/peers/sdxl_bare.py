"""The bare pipeline in a process of its own: no runner, no group, one GPU. Started by ``sdxl``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from benchmarks.peers.lines import Asked
from benchmarks.sdxl_model import Painter, digest


def main() -> None:
    """Draw what is asked for: ``count`` pictures, one after the other, and tell when each began and was in memory."""
    asked = Asked()
    how: dict[str, Any] = json.loads(sys.argv[1])
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    painter = Painter(device=device, **how)
    for request in asked:
        times, pictures = [], []
        for number in range(request["count"]):
            began = time.monotonic()
            pictures.append(painter.draw(request["seed"] + number).cpu().numpy())
            times.append((began, time.monotonic()))
        asked.answer({"times": times, "digests": [digest(picture) for picture in pictures]})


if __name__ == "__main__":
    main()
