"""The neurocore, our core for FPGAs: its image, and the way from a Program to it (docs/neurocore.md)."""

from nmc_compiler.neurocore.image import Image, check_image, image_digest, load_image, save_image
from nmc_compiler.neurocore.sizes import Memory, Sizes, memories

__all__ = ["Image", "Memory", "Sizes", "check_image", "image_digest", "load_image", "memories", "save_image"]
