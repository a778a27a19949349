"""All timings, one after the other."""

from bench import dit_forward, vae_decode

dit_forward.main()
vae_decode.main()
