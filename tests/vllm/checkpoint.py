"""A DeepSeek-OCR checkpoint made on the spot, that vLLM loads as the real one.

    python -m tests.vllm.checkpoint

builds it in the cache unless it is there (see `tests.vllm.environment`; needs torch and
tokenizers), and prints where it is. What it says: `shades.py`; how it sees: `tower.py`; how it
speaks: `tokens.py` and `chains.py`. The real profile works with it unchanged.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.vllm import chains, environment, shades, tokens, tower
from tests.vllm.shades import Shade, pages

_SEED = 20_251_020
_BUILT = "built.json"


def checkpoint_folder() -> Path:
    """Where the checkpoint of this revision lies or will lie."""
    files = [
        Path(__file__),
        *(Path(str(m.__file__)) for m in (shades, tower, chains, tokens)),
    ]
    name = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]
    return environment.cache_folder() / f"deepseek-ocr-crafted-{name}"


def build() -> Path:
    """The folder of the checkpoint, which is made first if it is not there.

    Raises:
        RuntimeError: the model would not see or say what it should.
    """
    folder = checkpoint_folder()
    with environment.alone(folder):
        if not (folder / _BUILT).exists():
            begun = time.monotonic()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _make(folder)
            took = round(time.monotonic() - begun)
            (folder / _BUILT).write_text(json.dumps({"seconds": took}))
            _say(f"made in {took} s")
    return folder


def _make(folder: Path) -> None:
    known = list(pages().values())
    tokenizer, spoken = tokens.tokenizer_and_chains(known)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, described in (("tokenizer_config", _tokenizer_config()), ("config", _config())):
        (folder / f"{name}.json").write_text(json.dumps(described, ensure_ascii=False, indent=1))

    torch.manual_seed(_SEED)
    vectors = chains.shade_vectors(len(known))
    made = tower.tower([shade.grey for shade in known], vectors)
    _check_sight(made, known, vectors)
    said = chains.language_model(spoken, tokens.END_TOKEN, tokens.VOCABULARY, _SEED)
    zeros = made.shapes | {
        "model.image_newline": (chains.WIDTH,),
        "model.view_seperator": (chains.WIDTH,),  # spelt so in the model
    }
    _write_weights(folder / "model.safetensors", dict(made.weights) | said, zeros)


def _check_sight(made: tower.Tower, known: Sequence[Shade], vectors: Tensor) -> None:
    """Views half of which is one shade, more or less, and the rest anything.

    Raises:
        RuntimeError: one was taken for another shade.
    """
    for shade, vector in zip(known, vectors, strict=True):
        for off in (-shades.TOLERANCE, shades.TOLERANCE):
            patches = torch.full((3, 40, 40), min(max(shade.grey + off, 0), 255) / 127.5 - 1)
            noise = torch.rand(3, 40, 40) * 2 - 1
            mixed = torch.where(torch.rand(40, 40) < 0.5, patches, noise)
            seen = tower.look(made, mixed.repeat_interleave(16, 1).repeat_interleave(16, 2))[0]
            if (seen.float() - vector).norm() > 0.3 * vector.norm():
                raise RuntimeError(f"not seen: {shade.name}, {off:+} levels")


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens.BEGIN,
        "eos_token": tokens.END,
        "pad_token": tokens.PAD,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 8192,
    }


def _config() -> dict[str, Any]:
    common = {"bos_token_id": 0, "eos_token_id": 1, "vocab_size": tokens.VOCABULARY}
    language = {
        **common,
        "architectures": ["DeepseekV2ForCausalLM"],
        "hidden_size": chains.WIDTH,
        "intermediate_size": chains.INNER,
        "num_hidden_layers": chains.LAYERS,
        "num_attention_heads": chains.HEADS,
        "num_key_value_heads": chains.HEADS,
        "first_k_dense_replace": chains.LAYERS,  # no layer has experts
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": chains.INNER,
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
    }
    return {
        **common,
        "architectures": ["DeepseekOCRForCausalLM"],
        "model_type": "deepseek_vl_v2",
        "candidate_resolutions": [[1024, 1024]],
        "global_view_pos": "head",
        "tile_tag": "2D",
        "torch_dtype": "bfloat16",
        "language_config": language,
        "projector_config": {
            "model_type": "mlp_projector",
            "projector_type": "linear",
            "input_dim": 2048,
            "n_embed": chains.WIDTH,
        },
        "vision_config": {
            "model_type": "vision",
            "model_name": "deeplip_b_l",
            "image_size": 1024,
            "mlp_ratio": 3.7362,
        },
    }


def _write_weights(file: Path, weights: Mapping[str, Tensor], zeros: tower.Shapes) -> None:
    """A safetensors file in which zeros are holes: 1 GB long, a tenth of that on disk."""
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()} | zeros
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    start = 8 + len(described)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(described)) + described)
        out.truncate(start + end)
        for name, weight in weights.items():
            out.seek(start + header[name]["data_offsets"][0])
            rows = weight.detach().bfloat16().contiguous().view(torch.int16)
            for row in rows.reshape(rows.shape[0], -1):
                data = row.numpy().tobytes()
                if any(data):
                    out.write(data)
                else:
                    out.seek(len(data), 1)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(build())
