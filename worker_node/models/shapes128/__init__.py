"""shapes-128: Stoker's own text-to-image model, a Flux pipeline of under 8 million parameters.

Says only where the weights lie, so that importing it is cheap; diffusers' ``FluxPipeline.from_pretrained`` loads them.
"""

from pathlib import Path

WEIGHTS_DIR = Path(__file__).parent / "weights"
"""A plain diffusers pipeline folder. Ask for height=128, width=128 and max_sequence_length=32."""
