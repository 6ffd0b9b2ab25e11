"""A processor with the face that vLLM expects of Phi-3-vision's.

A page is fitted into crops of 336 pixels and padded to whole ones; the model gets the page shrunk
into one crop, then the crops. Their tokens: 12 x 12 a crop, one after each row of them, and one
between crops and shrunk page.
"""

import math

import torch
from PIL import Image, ImageOps
from torchvision.transforms.functional import pil_to_tensor
from transformers import BatchFeature, ProcessorMixin

CROP, TOKENS = 336, 12
MEAN = torch.tensor([0.481, 0.458, 0.408])[:, None, None]
SPREAD = torch.tensor([0.269, 0.261, 0.276])[:, None, None]


class Phi3VProcessor(ProcessorMixin):
    """Images and text to tensors; `num_crops` are the most crops of a page."""

    def __init__(self, tokenizer, num_crops=16, **kwargs):
        self.tokenizer = tokenizer
        self.num_crops = num_crops
        super().__init__(tokenizer, **kwargs)

    @property
    def img_tokens(self):
        """What stands for images in a prompt."""
        return [f"<|image_{number}|>" for number in range(1, 1000)]

    def calc_num_image_tokens_from_image_size(self, width, height):
        """Tokens that an image of this size takes."""
        across, down = self._crops(width, height)
        return down * TOKENS * (across * TOKENS + 1) + 1 + TOKENS * (TOKENS + 1)

    def __call__(self, text=None, images=None, return_tensors="pt", **kwargs):
        """Token numbers of the text; pixels (image, crop, 3, 336, 336) and sizes of the images."""
        found = dict(self.tokenizer(text, return_tensors=return_tensors))
        if images is not None:
            images = images if isinstance(images, list) else [images]
            cut = [self._cut(image.convert("RGB")) for image in images]
            found["pixel_values"] = torch.stack([pixels for pixels, _ in cut])
            found["image_sizes"] = torch.tensor([size for _, size in cut])
        return BatchFeature(found)

    def _crops(self, width, height):
        """Crops across and down: as many along the longer side as all of them allow."""
        shape = max(width, height) / min(width, height)
        along = max(
            (n for n in range(1, self.num_crops + 1) if n * math.ceil(n / shape) <= self.num_crops),
            default=1,
        )
        other = math.ceil(along / shape)
        return (along, other) if width >= height else (other, along)

    def _cut(self, image):
        across, down = self._crops(*image.size)
        size = (across * CROP, down * CROP)
        padded = ImageOps.pad(image, size, color="white", centering=(0, 0))
        views = [image.resize((CROP, CROP), Image.Resampling.BICUBIC)]
        for row in range(down):
            for column in range(across):
                corner = (column * CROP, row * CROP)
                views.append(padded.crop((*corner, corner[0] + CROP, corner[1] + CROP)))
        pixels = torch.stack([(pil_to_tensor(view) / 255 - MEAN) / SPREAD for view in views])
        missing = self.num_crops + 1 - len(views)
        pixels = torch.cat([pixels, torch.zeros(missing, 3, CROP, CROP)])
        return pixels, (size[1], size[0])
