"""Clients that others wrote ask `mos serve` for pictures: clients.py ADDRESS"""

import base64
import io
import sys
from urllib.parse import urlparse

import openai
import webuiapi
from PIL import Image, ImageDraw

address = sys.argv[1]


def by_webuiapi() -> None:
    where = urlparse(address)
    api = webuiapi.WebUIApi(host=where.hostname, port=where.port)
    asked = dict(prompt="a red cat", negative_prompt="dog", width=64, height=64, steps=4)
    made = api.txt2img(seed=7, sampler_name="Euler a", batch_size=2, **asked)
    assert len(made.images) == 2 and made.image.size == (64, 64)
    assert made.info["all_seeds"] == [7, 8], made.info
    assert made.image.info["parameters"].startswith("a red cat\nNegative prompt: dog\nSteps: 4")
    again = api.txt2img(seed=7, sampler_name="Euler a", **asked)
    assert again.image.tobytes() == made.image.tobytes()
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((0, 0, 31, 63), fill=255)
    changed = api.img2img(images=[made.image], mask_image=mask, seed=1, denoising_strength=0.7,
                          inpainting_fill=1, sampler_name="DPM++ 2M", scheduler="Karras", **asked)
    assert changed.image.size == (64, 64) and changed.image.tobytes() != made.image.tobytes()
    assert api.png_info(made.image).info.startswith("a red cat")
    assert "Euler a" in [sampler["name"] for sampler in api.get_samplers()]
    assert api.get_sd_models()[0]["title"] == "tiny"
    assert api.get_options()["sd_model_checkpoint"] == "tiny"
    api.set_options({"sd_model_checkpoint": "tiny"})
    assert api.get_progress()["progress"] == 0
    api.interrupt()
    try:
        api.txt2img(enable_hr=True, **asked)
    except RuntimeError as error:
        assert "enable_hr" in str(error), error
    else:
        raise AssertionError("hires fix is not there")


def by_openai() -> None:
    client = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny"]
    made = client.images.generate(model="tiny", prompt="a red cat", n=2, size="64x64",
                                  response_format="b64_json", extra_body={"seed": 7, "steps": 4})
    first, _ = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in made.data]
    assert first.size == (64, 64)
    first = first.convert("RGBA")
    ImageDraw.Draw(first).rectangle((0, 0, 31, 63), fill=(0, 0, 0, 0))
    file = io.BytesIO()
    first.save(file, "PNG")
    edited = client.images.edit(model="tiny", prompt="a blue dog", size="64x64",
                                image=("a.png", file.getvalue()), extra_body={"steps": 4})
    assert edited.data[0].b64_json
    try:
        client.images.generate(model="dall-e-3", prompt="a red cat")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and error.param == "model", error
    else:
        raise AssertionError("there is no such model")
    try:
        client.images.generate(model="tiny", prompt="a red cat", size="9999x9999")
    except openai.BadRequestError as error:
        assert error.param == "size", error
    else:
        raise AssertionError("that is too large")


by_webuiapi()
by_openai()
print("pictures came by webuiapi and openai")
