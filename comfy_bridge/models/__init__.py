"""MODEL, CLIP, VAE and the other objects of the host, made of wan_models."""
