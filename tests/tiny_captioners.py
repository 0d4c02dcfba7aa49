"""A captioner that is tiny and real: Qwen2-VL's own classes and tokenizer, and six photos that it has learnt.

`qwen2_vl(folder)` builds the model from a configuration, trains it for some seconds until it knows a caption for each
of the photos, and saves model and processor as `save_pretrained` does: what loads Qwen2-VL from the hub loads this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import real_tokenizers
import skimage
import torch
from PIL import Image

CAPTIONS = {
    "astronaut.png": "a woman in an orange space suit, smiling",
    "chelsea.png": "a ginger cat, close up",
    "coffee.png": "a cup of coffee on a wooden table, a spoon on the saucer",
    "motorcycle_left.png": "a motorcycle in a garage",
    "rocket.jpg": "a rocket at night",
    "hubble_deep_field.jpg": "hundreds of distant galaxies, black sky",
}
PROMPT = "Describe this image."

# As in Qwen2-VL's own repository, tools and videos aside.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
"""A vision tower, in the words that most families have for it."""

SQUARE = {"height": VISION["image_size"], "width": VISION["image_size"]}
"""Of the images that it sees."""


def photos() -> list[Path]:
    """The photos that the captioner knows."""
    return [Path(skimage.__file__).parent / "data" / name for name in CAPTIONS]


def qwen2_vl(folder: Path) -> Path:
    """Saves the captioner in `folder`."""
    from transformers import Qwen2VLForConditionalGeneration

    processor = _processor()
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(_config(processor.tokenizer))
    _train(model, processor)
    return _saved(folder, processor, model)


def _processor() -> Any:
    from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen2VLProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer = AutoTokenizer.from_pretrained(real_tokenizers.tokenizer("qwen_image"))
    size = {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 16}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=CHAT_TEMPLATE,
    )


def _config(tokenizer: Any) -> Any:
    from transformers import Qwen2VLConfig

    token = tokenizer.convert_tokens_to_ids
    return Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
            "tie_word_embeddings": True,
            "eos_token_id": token("<|im_end|>"),
            "bos_token_id": None,
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64, "mlp_ratio": 2},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def _train(model: Any, processor: Any) -> None:
    conversations = []
    for photo in photos():
        image = Image.open(photo).convert("RGB")
        question = {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": PROMPT}]}
        answer = {"role": "assistant", "content": [{"type": "text", "text": CAPTIONS[photo.name]}]}
        conversations.append([question, answer])
    processor.tokenizer.padding_side = "right"
    batch = processor.apply_chat_template(
        conversations, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"padding": True}
    )
    # Positions whose next token is part of an answer, <|im_end|> included.
    start, pad = processor.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|endoftext|>"])
    tokens = batch["input_ids"]
    answers_at = [int((row == start).nonzero()[-1]) + 3 for row in tokens]  # after <|im_start|>, assistant, \n
    place = torch.arange(tokens.shape[1])
    asked = torch.stack([place + 1 >= at for at in answers_at])[:, :-1] & (tokens[:, 1:] != pad)
    # Of the 150,000 tokens only those that occur, and a hundredth of the others, have part in the loss: that takes
    # seconds in the place of minutes, and the others stay as unlikely as they were.
    candidates = torch.cat([tokens.flatten(), torch.arange(0, len(processor.tokenizer), 100)]).unique()
    targets = torch.searchsorted(candidates, tokens[:, 1:][asked])
    embeddings = model.get_input_embeddings()
    embeddings.sparse = True
    others = [weight for weight in model.parameters() if weight is not embeddings.weight]
    optimizers = [torch.optim.AdamW(others, lr=3e-3), torch.optim.SparseAdam([embeddings.weight], lr=3e-3)]
    for _ in range(300):
        hidden = model.model(**batch).last_hidden_state[:, :-1][asked]
        words = torch.nn.functional.embedding(candidates, embeddings.weight, sparse=True)
        loss = torch.nn.functional.cross_entropy(hidden @ words.T, targets)
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if loss.item() < 0.02:
            break


def florence2(folder: Path) -> Path:
    """Saves an untrained Florence-2 in `folder`."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = AutoTokenizer.from_pretrained(
        real_tokenizers.tokenizer("sd15_clip_l"), extra_special_tokens={"image_token": "<image>"}
    )
    size = {"height": 64, "width": 64}
    image_processor = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    image_processor.image_seq_length = 5
    processor = Florence2Processor(image_processor=image_processor, tokenizer=tokenizer)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(
        Florence2Config(
            text_config={
                "model_type": "bart",
                "vocab_size": len(tokenizer),
                "d_model": 32,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 64,
                "decoder_ffn_dim": 64,
                "decoder_start_token_id": tokenizer.eos_token_id,
                "forced_eos_token_id": None,
                "pad_token_id": tokenizer.pad_token_id,
                **ends,
            },
            vision_config={
                "embed_dim": (16, 16, 16, 32),
                "depths": (1, 1, 1, 1),
                "num_heads": (2, 2, 2, 2),
                "num_groups": (2, 2, 2, 2),
                "window_size": 4,
                "projection_dim": 32,
            },
            image_token_id=tokenizer.image_token_id,
        )
    )
    return _saved(folder, processor, model)


def smolvlm(folder: Path) -> Path:
    """Saves an untrained SmolVLM in `folder` (the first generation, whose classes are Idefics 3's)."""
    from transformers import (
        AutoTokenizer,
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    tokenizer = AutoTokenizer.from_pretrained(real_tokenizers.tokenizer("qwen_image"))
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessor(size={"longest_edge": 128}, max_image_size={"longest_edge": 64}),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=_template("<image>"),
    )
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            text_config={"model_type": "llama", **_text(tokenizer)},
            vision_config=VISION | {"image_size": 64},
            scale_factor=2,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return _saved(folder, processor, model)


def llava(folder: Path) -> Path:
    """Saves an untrained LLaVA in `folder`: JoyCaption's classes too."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(real_tokenizers.tokenizer("qwen_image"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=SQUARE, crop_size=SQUARE),
        tokenizer=tokenizer,
        patch_size=VISION["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("<image>"),
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            text_config={"model_type": "llama", **_text(tokenizer)},
            vision_config={"model_type": "clip_vision_model", **VISION},
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1,
        )
    )
    return _saved(folder, processor, model)


def gemma3(folder: Path) -> Path:
    """Saves an untrained Gemma 3 in `folder`."""
    from transformers import (
        AutoTokenizer,
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
    )

    special = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = AutoTokenizer.from_pretrained(real_tokenizers.tokenizer("qwen_image"), extra_special_tokens=special)
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size=SQUARE),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=_template("<start_of_image>"),
    )
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=_text(tokenizer)
            | {"head_dim": 16, "layer_types": ["full_attention"], "bos_token_id": tokenizer.eos_token_id},
            vision_config=VISION,
            mm_tokens_per_image=4,
            **{f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in special.items()},
        )
    )
    return _saved(folder, processor, model)


def mllama(folder: Path) -> Path:
    """Saves an untrained Llama 3.2 Vision in `folder`."""
    from transformers import (
        AutoTokenizer,
        MllamaConfig,
        MllamaForConditionalGeneration,
        MllamaImageProcessor,
        MllamaProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(real_tokenizers.tokenizer("qwen_image"), bos_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    processor = MllamaProcessor(
        image_processor=MllamaImageProcessor(size=SQUARE, max_image_tiles=2),
        tokenizer=tokenizer,
        chat_template=_template("<|image|>"),
    )
    torch.manual_seed(0)
    model = MllamaForConditionalGeneration(
        MllamaConfig(
            text_config=_text(tokenizer)
            | {
                "num_hidden_layers": 2,
                "cross_attention_layers": [1],
                "bos_token_id": tokenizer.bos_token_id,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            },
            vision_config=VISION
            | {
                "num_global_layers": 1,
                "attention_heads": 2,
                "vision_output_dim": 64,
                "intermediate_layers_indices": [0],
                "max_num_tiles": 2,
                "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
            },
            image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
        )
    )
    return _saved(folder, processor, model)


def _saved(folder: Path, processor: Any, model: Any) -> Path:
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _template(image: str) -> str:
    """The chat template, with a family's own mark for an image."""
    return CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", image)


def _text(tokenizer: Any) -> dict[str, Any]:
    """A language model, in the words that most families have for it."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
