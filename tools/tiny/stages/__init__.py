"""The stages of training, in order: data, vae, towers, unet, adapter, judge. Each is resumable and timed."""
