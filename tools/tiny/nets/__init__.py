"""The model's parts as plain PyTorch modules.

Parameters carry the names that the diffusers and transformers libraries give them, and `config` holds the same
`config.json` files, so what is trained here loads there; neither library is needed to train.
"""
