"""Loading: a pipeline of one of the families that we know, from a folder or a hub id, from safetensors alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from stoker.errors import ConfigurationError
from worker_node.diffusion.families import FAMILIES, Family


def load_family(model: str, device: torch.device) -> Family:
    """Load ``model`` onto ``device``: float32 on a CPU, half precision on a GPU.

    Raises:
        ConfigurationError: it is no pipeline, or of a family that we do not know.
    """
    from diffusers import DiffusionPipeline

    folder = Path(model)
    is_local = folder.is_dir()
    if not is_local and (folder.is_absolute() or model.startswith(".")):
        raise ConfigurationError(f"there is no model folder {model}", hint="Name a diffusers folder or a hub id.")
    if is_local:
        index = folder / "model_index.json"
        config = json.loads(index.read_text()) if index.is_file() else {}
    else:
        config = dict(DiffusionPipeline.load_config(model))
    name = str(config.get("_class_name"))
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigurationError(f"{model} is a {name}", hint=f"Pipelines that can be served: {known}.")
    family = FAMILIES[name]
    load: Any = DiffusionPipeline.from_pretrained
    pipeline = load(
        model,
        dtype=torch.float32 if device.type == "cpu" else family.gpu_dtype,
        use_safetensors=True,
        local_files_only=is_local,
    )
    pipeline.set_progress_bar_config(disable=True)
    return family(pipeline.to(device), folder if is_local else None)
