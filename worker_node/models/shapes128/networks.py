"""The networks of shapes-128 and their sizes: chosen so that 2, 4 and 8 ranks divide heads and tokens.

8 heads, 64 packed picture tokens, 32 text tokens; under 8 million parameters together. ``train`` builds them.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from worker_node.models.shapes128.layout import CANVAS
from worker_node.models.shapes128.tokenizers import TEXT_LENGTH, build_clip, build_t5

LATENT_CHANNELS = 16
LATENT_SIZE = CANVAS // 8


def build_vae() -> AutoencoderKL:
    """Eight times smaller each way, as Flux's own."""
    return AutoencoderKL(
        block_out_channels=(24, 48, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=LATENT_CHANNELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=CANVAS,
        shift_factor=0.0,
    )


@dataclass
class TextToLatent:
    """What is trained together on captions: the transformer and both text encoders, with their tokenizers."""

    transformer: FluxTransformer2DModel
    t5: T5EncoderModel
    clip: CLIPTextModel
    t5_tokenizer: T5Tokenizer
    clip_tokenizer: CLIPTokenizer

    @property
    def modules(self) -> nn.ModuleList:
        """The three networks as one, for an optimizer or an average."""
        return nn.ModuleList([self.transformer, self.t5, self.clip])

    def tokenize_t5(self, prompts: list[str]) -> Tensor:
        """Pad and cut prompts as FluxPipeline does."""
        return _ids(self.t5_tokenizer, prompts)

    def tokenize_clip(self, prompts: list[str]) -> Tensor:
        """Pad and cut prompts as FluxPipeline does."""
        return _ids(self.clip_tokenizer, prompts)


def _ids(tokenizer: T5Tokenizer | CLIPTokenizer, prompts: list[str]) -> Tensor:
    options = {"padding": "max_length", "max_length": TEXT_LENGTH, "truncation": True, "return_tensors": "pt"}
    ids: Tensor = tokenizer(prompts, **options).input_ids
    return ids


def build_text_to_latent() -> TextToLatent:
    """Fresh networks, initialised from torch's global seed."""
    t5_tokenizer, clip_tokenizer = build_t5(), build_clip()
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer),
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="relu",
        )
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=64,
            intermediate_size=128,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
        )
    )
    transformer = FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=6,
        num_attention_heads=8,
        attention_head_dim=24,
        joint_attention_dim=128,
        pooled_projection_dim=64,
        axes_dims_rope=(4, 10, 10),
    )
    # diffusers leaves the modulation at random; a block that starts as the identity lets a small model learn fast
    for name, weight in transformer.named_parameters():
        if ".norm" in name and ".linear." in name:
            nn.init.zeros_(weight)
    nn.init.zeros_(transformer.proj_out.weight)
    return TextToLatent(transformer, t5, clip, t5_tokenizer, clip_tokenizer)


def assemble(vae: AutoencoderKL, model: TextToLatent, shift: float) -> FluxPipeline:
    """Put a plain pipeline together."""
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=vae,
        text_encoder=model.clip,
        tokenizer=model.clip_tokenizer,
        text_encoder_2=model.t5,
        tokenizer_2=model.t5_tokenizer,
        transformer=model.transformer,
    )


@torch.no_grad()
def tie_letter_case(model: TextToLatent) -> None:
    """Give each T5 piece the embedding of its lower-case form: what is said counts, not how it is spelled."""
    vocab = model.t5_tokenizer.get_vocab()
    embedding = model.t5.get_input_embeddings().weight
    for piece, index in vocab.items():
        embedding[index] = embedding[vocab.get(piece.lower(), index)]


def parameter_count(*modules: nn.Module) -> int:
    """How many numbers the modules hold."""
    return sum(p.numel() for module in modules for p in module.parameters())


def pack(latents: Tensor) -> Tensor:
    """(B, C, H, W) latents as Flux's tokens of 2x2 latents: (B, H*W/4, 4*C)."""
    b, c, h, w = latents.shape
    packed: Tensor = FluxPipeline._pack_latents(latents, b, c, h, w)  # noqa: SLF001  # diffusers' only spelling of it
    return packed


def positions(device: torch.device) -> tuple[Tensor, Tensor]:
    """The ids of picture tokens and of text tokens, as FluxPipeline makes them."""
    rows = torch.arange(LATENT_SIZE // 2, device=device, dtype=torch.float32)
    grid = torch.cartesian_prod(rows, rows)
    picture = torch.cat([torch.zeros(len(grid), 1, device=device), grid], dim=1)
    return picture, torch.zeros(TEXT_LENGTH, 3, device=device)
