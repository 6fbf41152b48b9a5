"""The stages of training, in order: data, vae, towers, unet, align, adapter, judge. Each is resumable and timed."""
