"""A configuration under the name that Phi-3-vision's has, which transformers 5 does not know."""

from transformers import PreTrainedConfig


class Phi3VConfig(PreTrainedConfig):
    """Whatever stands in config.json becomes an attribute."""

    model_type = "phi3_v"
