"""Pictures, video, sound and latents between the host's types and ours."""
