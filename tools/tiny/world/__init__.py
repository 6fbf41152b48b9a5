"""The little world: people, animals, things and places, drawn with their captions and masks.

`canvas` draws shapes, `places` and `subjects` draw what the world holds, `scenes` composes pictures and writes
their captions, `concepts` holds what the model has never seen.
"""
