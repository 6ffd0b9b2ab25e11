"""A DeepSeek-VL2 without weights: what vLLM needs to start one with random ones.

It shows that requests in this model's form are taken and answered; what it answers means nothing.
Its vision tower has its true size, which vLLM has built in (SigLIP So400m, 0.9 GB).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.vllm.weightless import write_json, write_tokenizer

ARGUMENTS = (
    *("--load-format", "dummy"),
    *("--hf-overrides", '{"architectures": ["DeepseekVLV2ForCausalLM"]}'),
    # Else it would be tried out at the start with the largest image, for a minute.
    "--skip-mm-profiling",
)
"""What `vllm serve` needs to be told of it."""

_TILE, _MOST_TILES = 384, 9
_WIDTH, _LAYERS, _HEADS = 128, 2, 2
_BEGIN, _END, _PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
_MARKS = (
    *("<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"),
    *("<|User|>", "<|Assistant|>"),
)


def write_vl2(folder: Path) -> Path:
    """Make the model's folder, and return it."""
    tokens = write_tokenizer(folder, _BEGIN, _END, _PAD, _MARKS)
    tiles = range(1, _MOST_TILES + 1)
    grids = sorted(((x, y) for x in tiles for y in tiles), key=lambda grid: grid[0] * grid[1])
    candidates = [[_TILE * x, _TILE * y] for x, y in grids if x * y <= _MOST_TILES]
    config, processor = _config(candidates, tokens), _processor_config(candidates)
    write_json(folder, {"config.json": config, "processor_config.json": processor})
    return folder


def _processor_config(candidates: list[list[int]]) -> dict[str, Any]:
    return {
        "processor_class": "DeepseekVLV2Processor",
        "candidate_resolutions": candidates,
        "patch_size": 14,
        "downsample_ratio": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "normalize": True,
        "image_token": "<image>",
        "pad_token": _PAD,
        "add_special_token": False,
        "sft_format": "deepseek",
        "mask_prompt": False,
        "ignore_id": -100,
    }


def _config(candidates: list[list[int]], tokens: int) -> dict[str, Any]:
    common = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": tokens}
    return {
        **common,
        "architectures": ["DeepseekVLV2ForCausalLM"],
        "model_type": "deepseek_vl_v2",
        "candidate_resolutions": candidates,
        "global_view_pos": "head",
        "tile_tag": "2D",
        "torch_dtype": "bfloat16",
        "language_config": {
            **common,
            "architectures": ["DeepseekV2ForCausalLM"],
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS,
            "first_k_dense_replace": 1,  # the other layer has experts
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 256,
            "n_group": 1,
            "topk_group": 1,
            "topk_method": "greedy",
            "kv_lora_rank": None,
            "q_lora_rank": None,
            "qk_nope_head_dim": 0,
            "qk_rope_head_dim": 0,
            "v_head_dim": 0,
            "use_mla": False,
            "max_position_embeddings": 8192,
            "rope_theta": 10_000.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            "rms_norm_eps": 1e-6,
            "torch_dtype": "bfloat16",
        },
        "projector_config": {
            "model_type": "mlp_projector",
            "projector_type": "downsample_mlp_gelu",
            "input_dim": 1152,
            "n_embed": _WIDTH,
            "depth": 2,
            "mlp_ratio": 1,
            "downsample_ratio": 2,
        },
        "vision_config": {
            "model_type": "vision",
            "model_name": "vit_so400m_patch14_siglip_384.webli",
            "image_size": _TILE,
            "patch_size": 14,
            "width": 1152,
            "layers": 27,
            "mlp_ratio": 3.7362,
        },
    }
