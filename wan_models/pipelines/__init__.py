"""The official pipelines, one page each: from prompts, pictures and sound to the frames of a video."""
