"""SDXL's sizes are embedded in float32, whatever the network's dtype."""

import torch
from tiny_pipelines import tiny_pipeline

from calotype.encodings.frozen import FrozenModels
from calotype.models.sdxl import predict_sdxl
from calotype.train.networks import load_network


def test_a_pixel_more_is_another_size_under_bfloat16():
    models = FrozenModels(tiny_pipeline("sdxl"))
    unet = load_network(models, torch.bfloat16)
    seen = []
    unet.add_time_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    rng = torch.Generator().manual_seed(0)
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    texts = {
        "prompt_embeds": torch.randn(1, 4, unet.config.cross_attention_dim, generator=rng).bfloat16(),
        "pooled_prompt_embeds": torch.randn(1, pooled, generator=rng).bfloat16(),
        "original_size": torch.tensor([[1023, 769]]),
        "crop_top_left": torch.tensor([[0, 257]]),
        "target_size": torch.tensor([[1024, 1024]]),
    }
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        predict_sdxl(unet, torch.zeros(1, 4, 8, 8, dtype=torch.bfloat16), torch.tensor([9]), texts, None)
    assert seen[0].dtype == torch.float32 and seen[0].flatten().tolist() == [1023, 769, 0, 257, 1024, 1024]
