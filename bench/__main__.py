"""All timings, one after the other."""

from bench import animate_steps, dit_forward, speech_steps, vae_decode

dit_forward.main()
speech_steps.main()
animate_steps.main()
vae_decode.main()
