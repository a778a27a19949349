"""From a driving video to what leads Animate-14B: skeletons, faces, masks."""
