"""From still images to what the image-to-video models are given: video sizes, resizes, known frames and their masks.

Images are [B, H, W, C] in 0..1 throughout.
"""
