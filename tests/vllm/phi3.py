"""A Phi-3-vision without weights: what vLLM needs to start one with random ones.

transformers 5 knows neither this model's configuration nor its processor; the real model brings
them along as code, and so does this one: `phi3_code`, our own. Its vision tower has its true size,
which vLLM has built in (CLIP-L of 336 pixels, 0.6 GB).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.vllm.weightless import write_json, write_tokenizer

ARGUMENTS = ("--load-format", "dummy", "--trust-remote-code", "--skip-mm-profiling")
"""What `vllm serve` needs to be told of it."""

_CODE = Path(__file__).with_name("phi3_code")
_WIDTH = 128
_MARKS = {"<|image|>": 32_044, "<|user|>": 32_010, "<|end|>": 32_007, "<|assistant|>": 32_001}
_VOCABULARY = 32_064
_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}<|end|>\n"
    "{% endfor %}<|assistant|>\n"
)


def write_phi3(folder: Path) -> Path:
    """Make the model's folder, and return it."""
    write_tokenizer(folder, "<s>", "<|endoftext|>", "<pad>", _MARKS)
    config = {
        "architectures": ["Phi3VForCausalLM"],
        "model_type": "phi3_v",
        "auto_map": {"AutoConfig": "configuration_phi3_v.Phi3VConfig"},
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "vocab_size": _VOCABULARY,
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": False,
        "img_processor": {"image_dim_out": 1024, "num_img_tokens": 144, "layer_idx": -2},
        "embd_layer": {
            "use_hd_transform": True,
            "with_learnable_separator": True,
            "hd_transform_order": "sub_glb",
        },
    }
    processor = {
        "processor_class": "Phi3VProcessor",
        "auto_map": {"AutoProcessor": "processing_phi3_v.Phi3VProcessor"},
        "num_crops": 4,  # the real one's 16 cost a minute a page here
    }
    write_json(folder, {"config.json": config, "processor_config.json": processor})
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    for file in _CODE.glob("*.py"):
        shutil.copy(file, folder)
    return folder
