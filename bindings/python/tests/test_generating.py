"""Pictures: the same as the program's, byte for byte."""

import json

import mixofshow as ms
import numpy as np
import pytest
from conftest import QUICK, QUICK_FLAGS, ROOT
from PIL import Image

PROMPT = "a (red:1.2) cat,\n  in the snow "


def test_pictures_and_files_are_those_of_the_program(model, mos, tmp_path):
    made, latents = model.generate(
        PROMPT, negative="dog", seed=1, guidance=3.0, batch=2, latents=True, **QUICK
    )
    options = ["-p", PROMPT, "-n", "dog", "--seed", "1", "-g", "3", "--batch", "2", *QUICK_FLAGS]
    mos("generate", *options, "-o", tmp_path / "mos.png", "--save-latents", tmp_path / "l.st")
    for index, picture in enumerate(made):
        theirs = tmp_path / f"mos-{index + 1}.png"
        with Image.open(theirs) as opened:
            opened.load()
            assert opened.tobytes() == picture.tobytes()
            assert opened.info == picture.info
            assert list(opened.info) == list(picture.info)
        ours = tmp_path / f"ours-{index + 1}.png"
        ms.save(picture, ours)
        assert ours.read_bytes() == theirs.read_bytes()
    settings = json.loads(made[1].info["mos"])
    assert settings["seed"] == 2
    # safetensors end in the numbers themselves.
    values = np.asarray(latents)
    assert values.dtype == np.float32 and values.shape == (2, 4, *values.shape[2:])
    assert (tmp_path / "l.st").read_bytes().endswith(values.tobytes())


def test_a_picture_is_made_again_from_its_file(model, mos, tmp_path):
    [picture] = model.generate("a cat", seed=3, **QUICK)
    ms.save(picture, tmp_path / "a.png")
    mos("generate", "--like", tmp_path / "a.png", "-o", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_is_left_open_is_the_models(model):
    assert model.size == (128, 128) and model.name == "tiny" and model.device
    [picture] = model.generate("a cat", steps=1)
    settings = json.loads(picture.info["mos"])
    assert picture.size == model.size
    assert settings["guidance"] == pytest.approx(model.guidance)
    assert settings["sampler"] == model.sampler
    assert 0 <= settings["seed"] < 2**32
    assert settings["model"] == {"name": "tiny", "hash": model.hash}


def test_seeds_of_generators(model):
    class Generator:
        def initial_seed(self):
            return 5

    [a] = model.generate("a cat", seed=Generator(), **QUICK)
    [b] = model.generate("a cat", seed=5, **QUICK)
    assert a.tobytes() == b.tobytes() and a.info == b.info


def test_regions_are_those_of_the_program(model, mos, tmp_path):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    mask.save(tmp_path / "mask.png")
    (tmp_path / "layout.toml").write_text(
        """
        isolate = true
        [[region]]
        box = [0, 0.2, 0.5, 1]
        prompt = "a red cat"
        negative = "dog"
        [[region]]
        mask = "mask.png"
        prompt = "a blue dog"
        soft = 0.0
        weight = 2.0
        """
    )
    options = ["-p", "snow", "--seed", "4", *QUICK_FLAGS, "--layout", tmp_path / "layout.toml"]
    mos("generate", *options, "-o", tmp_path / "mos.png")
    with Image.open(tmp_path / "mos.png") as opened:
        theirs, told = opened.tobytes(), opened.info
    array = np.asarray(mask)
    for given in [tmp_path / "mask.png", mask, array, array > 0, (array / 255).astype("float32")]:
        regions = [
            ms.Region("a red cat", box=(0, 0.2, 0.5, 1), negative="dog"),
            ms.Region("a blue dog", mask=given, weight=2),
        ]
        [made] = model.generate("snow", seed=4, regions=regions, isolate=True, **QUICK)
        assert made.tobytes() == theirs
    [made] = model.generate("snow", seed=4, layout=tmp_path / "layout.toml", **QUICK)
    assert made.tobytes() == theirs
    ms.save(made, tmp_path / "ours.png")
    assert made.info["parameters"] == told["parameters"]


def test_a_mask_of_no_file_is_missed_by_name(model, mos, tmp_path):
    mask = np.zeros((64, 64), "uint8")
    mask[:, :32] = 255
    [made] = model.generate("snow", seed=1, regions=[ms.Region("a cat", mask=mask)], **QUICK)
    ms.save(made, tmp_path / "a.png")
    error = mos("generate", "--like", tmp_path / "a.png", "-o", tmp_path / "b.png", fails=True)
    assert "array (the mask of region 1)" in error and "missing" in error


def test_pictures_to_start_from(model, mos, tmp_path):
    [start] = model.generate("a dog", seed=9, **QUICK)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    start.save(tmp_path / "start.png")
    mask.save(tmp_path / "mask.png")
    options = ["-p", "a cat", "--seed", "2", *QUICK_FLAGS, "--strength", "0.9"]
    options += ["-i", tmp_path / "start.png", "--mask", tmp_path / "mask.png"]
    mos("generate", *options, "-o", tmp_path / "mos.png")
    with Image.open(tmp_path / "mos.png") as opened:
        opened.load()
        theirs, told = opened.tobytes(), opened.info
    for image, where in [
        (tmp_path / "start.png", str(tmp_path / "mask.png")),
        (start, mask),
        (np.asarray(start), np.asarray(mask)),
    ]:
        [made] = model.generate(
            "a cat", seed=2, init_image=image, mask=where, strength=0.9, **QUICK
        )
        assert made.tobytes() == theirs
        if isinstance(where, str):
            assert made.info == told


def test_concepts_are_those_of_the_program(model, mos, concept, tmp_path):
    assert concept.words == ["<zorp1>", "<zorp2>"] and concept.name == "zorp" and concept.base
    prompt = "a <zorp1> <zorp2> in the snow"
    mos(
        *["generate", "-p", prompt, "--seed", "1", *QUICK_FLAGS, "-o", tmp_path / "mos.png"],
        *["--concept", f"{concept.path}:0.8"],
    )
    [made] = model.generate(prompt, seed=1, concepts=[concept.at(0.8)], **QUICK)
    ms.save(made, tmp_path / "ours.png")
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "mos.png").read_bytes()
    assert concept.at(0.5, text_scale=1).text_scale == 1


def test_a_region_brings_its_concepts_along(model, concept):
    def made(region, **more):
        [picture] = model.generate("snow", seed=1, regions=[region], **more, **QUICK)
        return picture.tobytes()

    prompt = "a <zorp1> <zorp2>"
    brought = made(ms.Region(prompt, box=(0, 0, 0.5, 1), concepts=[concept]))
    named = ms.Region(prompt, box=(0, 0, 0.5, 1), concepts={"zorp": 1.0})
    assert brought == made(named, concepts=[concept.path])
    with pytest.raises(ms.RegionError, match="zorp"):
        made(named)


def test_controls_are_those_of_the_program(model, mos, tmp_path):
    [name] = model.controls
    [picture] = model.generate("a dog", seed=9, **QUICK)
    picture.save(tmp_path / "dog.png")
    mos(
        *["generate", "-p", "a cat", "--seed", "1", *QUICK_FLAGS, "-o", tmp_path / "mos.png"],
        *["--control", f"{name}:image={tmp_path / 'dog.png'},make=outline,weight=0.7,end=0.9"],
    )
    control = ms.Control(name, tmp_path / "dog.png", make="outline", weight=0.7, end=0.9)
    [made] = model.generate("a cat", seed=1, controls=[control], **QUICK)
    ms.save(made, tmp_path / "ours.png")
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "mos.png").read_bytes()
    control.image = picture
    [again] = model.generate("a cat", seed=1, controls=[control], **QUICK)
    assert again.tobytes() == made.tobytes()


def test_noise_and_latents(model):
    pictures, latents = model.generate("a cat", seed=1, latents=True, **QUICK)
    [decoded] = model.decode(latents)
    assert decoded.tobytes() == pictures[0].tobytes()
    encoded = np.asarray(model.encode(pictures[0]))
    assert encoded.shape == np.asarray(latents).shape
    noise = np.random.default_rng(0).standard_normal(encoded.shape, dtype="float32")
    [a] = model.generate("a cat", seed=1, noise=noise, **QUICK)
    [b] = model.generate("a cat", seed=2, noise=noise.astype("float64"), **QUICK)
    assert a.tobytes() == b.tobytes() != pictures[0].tobytes()
    two = model.generate("a cat", seed=1, noise=np.concatenate([noise, noise]), **QUICK)
    assert len(two) == 2


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"sampler": "dpmpp-3m-sde", "eta": 0.5}, ["--sampler", "dpmpp-3m-sde", "--eta", "0.5"]),
        ({"sampler": "heun", "schedule": "beta"}, ["--sampler", "heun", "--schedule", "beta"]),
        ({"sampler": "tcd", "eta": 0.2}, ["--sampler", "tcd", "--eta", "0.2"]),
        (
            {"guidance_rescale": 0.7, "guidance_from": 0.2, "guidance_until": 0.8},
            ["--guidance-rescale", "0.7", "--guidance-from", "0.2", "--guidance-until", "0.8"],
        ),
        ({"cache": 2, "rng": "philox"}, ["--cache", "2", "--rng", "philox"]),
        ({"hires": 2}, ["--hires", "2"]),
        (
            {"hires": ms.Hires(1.5, "lanczos", 0.5, steps=4)},
            ["--hires", "1.5", "--hires-upscaler", "lanczos", "--hires-strength", "0.5"]
            + ["--hires-steps", "4"],
        ),
        ({"memory": 200_000_000}, ["--memory", "200000000"]),
    ],
)
def test_all_ways_to_sample_are_the_programs(model, mos, tmp_path, options, flags):
    size = {"size": (64, 64), "steps": 4}
    if "hires" in options:
        # Large enough for the model both times.
        size["sampler"] = "ddim"
        flags = [*flags, "--sampler", "ddim"]
    mos(
        *["generate", "-p", "a cat", "--seed", "1", "--size", "64x64", "--steps", "4", *flags],
        *["-o", tmp_path / "mos.png"],
    )
    [made] = model.generate("a cat", seed=1, **{**size, **options})
    ms.save(made, tmp_path / "ours.png")
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "mos.png").read_bytes()


def test_previews_change_nothing(model):
    shown = []
    [plain] = model.generate("a cat", seed=1, **QUICK)
    [made] = model.generate("a cat", seed=1, shown=lambda *at: shown.append(at), **QUICK)
    assert made.tobytes() == plain.tobytes() and made.info == plain.info
    assert [at[1:] for at in shown][-1][0] <= 2 and shown[0][0][0].size == (64, 64)

    def stop(pictures, done, of):
        raise RuntimeError("seen enough")

    with pytest.raises(RuntimeError, match="seen enough"):
        model.generate("a cat", seed=1, shown=stop, **QUICK)


def test_weights_in_eight_bits_are_the_programs(mos, tmp_path):
    model = ms.load(device="cpu", precision="q8_0")
    options = ["-p", "a cat", "--seed", "1", *QUICK_FLAGS, "--precision", "q8_0"]
    mos("generate", *options, "-o", tmp_path / "mos.png")
    [made] = model.generate("a cat", seed=1, **QUICK)
    ms.save(made, tmp_path / "ours.png")
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "mos.png").read_bytes()


def test_the_root_has_the_model():
    model = ms.load(ROOT / "models/tiny", device="cpu", precision="f32")
    assert len(model.hash) == 64 and "tiny" in repr(model)
