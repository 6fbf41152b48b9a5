"""Tests of the world and of what training rests on: `python -m tools.tiny.tests`. A minute on one core."""

import json
import math
import re
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import diffusion
from .nets import config
from .nets.blocks import attend
from .optimiser import Muon
from .runtime import Average, Session, Trainer
from .score import _judged
from .stages import identity, towers
from .stages.adapter import outline_iou, outlines, write_sketch
from .stages.judge import _SIZES
from .stages.vae import _whiten
from .nets.t2i_adapter import T2IAdapter, strengthened
from .nets.unet import UNet2DConditionModel
from .nets.vae import AutoencoderKL
from .nets.wider import widened
from .vocabulary import Vocabulary
from .world import casts, colours, concepts, parts, scenes, strangers
from .world.places import PLACE_NAMES, PLACES
from .world.subjects import KINDS

_TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "tiny" / "tokenizer"


class World(unittest.TestCase):
    def test_a_seed_gives_the_same_scene_picture_and_caption(self):
        for seed in range(scenes.VALIDATION, scenes.VALIDATION + 20):
            (a, rng_a), (b, rng_b) = scenes.example(seed), scenes.example(seed)
            self.assertEqual(scenes.caption(a, rng_a), scenes.caption(b, rng_b))
            self.assertEqual(scenes.render(a)[0].tobytes(), scenes.render(b)[0].tobytes())

    def test_every_subject_has_a_mask_where_it_stands(self):
        for seed in range(60):
            scene, _ = scenes.example(seed)
            _, masks = scenes.render(scene)
            self.assertEqual(len(masks), scene["count"])
            for mask, (_, x, *_) in zip(masks, scene["subjects"]):
                columns = np.nonzero((np.asarray(mask) > 127).any(0))[0]
                self.assertGreater(len(columns), 5)
                self.assertLess(abs(columns.mean() - x), 20)

    def test_labels_name_what_the_caption_names(self):
        for seed in range(200):
            scene, rng = scenes.example(seed)
            text, _ = scenes.caption(scene, rng)
            row = scenes.labels(scene)
            if scene["count"] == 4:
                self.assertEqual(set(row[1:]), {scenes.UNKNOWN})
                continue
            named = [KINDS[k - 1] for k in row[1::2] if k]
            self.assertEqual(len(named), scene["count"])
            for kind in named:
                self.assertIn(kind, text)

    def test_the_list_of_known_words_has_those_of_captions_alone(self):
        lines = (_TOKENIZER.parent / "known_words.txt").read_text(encoding="utf-8").splitlines()
        known = {
            word
            for line in lines
            if not line.startswith("#")
            for word in line.split(":", 1)[1].split()
        }
        told = set()
        for seed in range(scenes.TRAIN, scenes.TRAIN + 10000):
            scene, rng = scenes.example(seed)
            told |= set(re.findall("[a-z]+", scenes.caption(scene, rng)[0]))
        # The shipped weights may be older than the world, and know fewer; with new ones the list
        # is made anew, and has all.
        self.assertLessEqual(known, told)

    def test_captions_fit_into_the_towers(self):
        words = Vocabulary(_TOKENIZER)
        longest = 0
        for seed in range(3000):
            scene, rng = scenes.example(seed)
            longest = max(
                longest, words.encode(scenes.caption(scene, rng)[0], config.TOKENS).index(words.end)
            )
        self.assertLess(longest, towers._LONGEST)

    def test_concepts_have_masks_and_placeholders(self):
        for name, features in concepts.CONCEPTS.items():
            found = list(concepts.concept_scenes(name))
            self.assertEqual(len(found), concepts.PICTURES)
            for scene, text in found:
                self.assertEqual(text.count("<TOK>"), 1)
                _, masks = scenes.render(scene)
                if features["kind"] != "place":
                    share = (np.asarray(masks[0]) > 127).mean()
                    self.assertTrue(0.03 < share < 0.6, f"{name} covers {share:.2f}")

    def test_sketches_have_everybody_in_their_region(self):
        for kinds in [(kind,) * 3 for kind in KINDS] + [("dog", "car"), ("man", "dog", "woman")]:
            scene = concepts.sketch_scene(kinds)
            _, masks = scenes.render(scene)
            for mask, (_, x, *_), (left, right) in zip(
                masks, scene["subjects"], concepts.ROWS[len(kinds)]["columns"]
            ):
                columns = np.nonzero((np.asarray(mask) > 127).any(0))[0]
                self.assertTrue(left - 1 <= columns[0] and columns[-1] <= right, (kinds, columns))
                self.assertGreater(len(columns), 20, kinds)

    def test_plain_prompts_stay_plain_and_strange_ones_strange(self):
        for seed in range(30):
            plain = scenes.example(scenes.PROMPTS + seed)[0]
            strange = scenes.example(scenes.STRANGE_PROMPTS + seed)[0]
            self.assertFalse(plain.get("strange", False))
            self.assertTrue(strange["strange"])

    def test_captions_call_colours_what_they_are(self):
        rng = np.random.default_rng(0)
        for name, colour in colours.COLOURS.items():
            self.assertEqual(colours.plain_name(colour), name)
        for _ in range(200):
            colour = colours.any_colour(rng)
            name = colours.name_of(colour, rng)
            if name:
                near = np.linalg.norm(colours.oklab(colour) - colours.oklab(colours._FINE[name]))
                self.assertLess(near, colours._NEAR_PLAIN)

    def test_every_part_of_a_stranger_is_drawn_where_the_map_says(self):
        rng = np.random.default_rng(1)
        for kind in casts.SCALES:
            features = casts.draw_stranger(rng, kind)
            ((scene, _),) = casts.cast_scenes(features, 5, 0, 1)
            picture, where, found = parts.rendered(scene)
            known = {key for key, _, _ in strangers.PARTS[kind]}
            self.assertEqual(set(features) - {"kind", "scale"} - known, set())
            self.assertEqual(len(found), len(features) - 2, kind)
            for number, colour in found.items():
                inside = picture[where == number]
                self.assertGreater(len(inside), 8, (kind, number))
                self.assertTrue((inside == colour).all(), (kind, number))

    def test_a_cast_is_its_seeds_and_its_parts_are_far_apart(self):
        self.assertEqual(casts.draw_cast(3), casts.draw_cast(3))
        self.assertNotEqual(casts.draw_cast(3), casts.draw_cast(4))
        for seed in range(12):
            cast = casts.draw_cast(seed)
            kinds = [features["kind"] for features in cast.values()]
            self.assertEqual((len(kinds), len(set(kinds)), kinds[-1]), (8, 8, "place"))
            for features in cast.values():
                tones = [v for k, v in features.items() if isinstance(v, tuple)]
                for i, tone in enumerate(tones):
                    for other in tones[:i]:
                        apart = max(abs(a - b) for a, b in zip(tone, other))
                        self.assertGreaterEqual(apart, casts._APART)

    def test_a_cast_writes_what_concepts_write_and_its_parts(self):
        with tempfile.TemporaryDirectory() as folder:
            casts.write_cast(folder, 7, 2)
            names = json.loads((Path(folder) / "cast.json").read_text())["concepts"]
            self.assertEqual(len(names), 8)
            for name in names:
                about = json.loads((Path(folder) / name / "concept.json").read_text())
                picture = np.asarray(Image.open(Path(folder) / name / "00.png"))
                where = np.asarray(Image.open(Path(folder) / name / "parts" / "00.png"))
                mask = np.asarray(Image.open(Path(folder) / name / "mask" / "00.png"))
                self.assertEqual((Path(folder) / name / "00.txt").read_text().count("<TOK>"), 1)
                self.assertEqual(where[mask == 0].max(initial=0), 0)
                for part in about["parts"]:
                    self.assertTrue((picture[where == part["number"]] == part["colour"]).all())

    def test_likely_distances_are_small_on_the_taught_and_large_where_a_part_changed(self):
        rng = np.random.default_rng(2)
        features = casts.draw_stranger(rng, "woman")
        for changed in (False, True):
            ((scene, _),) = casts.cast_scenes(features, 6, 0, 1)
            scene, named = casts.numbered(features, scene)
            picture, masks, where = scenes.render(scene, parts=True)
            picture, inside = np.array(picture), np.asarray(masks[0]) > 127
            shares = {name: (where[inside] == n).mean() for n, (name, _) in named.items()}
            taught = {name: colour for name, colour in named.values()}
            if changed:
                number = next(n for n, (name, _) in named.items() if name == "skin")
                picture[where == number] = 255 - np.array(taught["skin"])
            found = parts.likely(picture[inside], taught, shares)
            self.assertLess(found["rgb"], 1)
            (self.assertGreater if changed else self.assertLess)(found["skin"], 10)

    def test_class_words_are_single_tokens(self):
        words = Vocabulary(_TOKENIZER)
        for kind in (*KINDS, "place"):
            self.assertEqual(words.encode(kind, 4)[2:], [words.end] * 2, kind)


class Training(unittest.TestCase):
    def test_outlines_agree_with_themselves_only(self):
        pictures = []
        for seed in (1, 2, 3, 4):
            pictures.append(
                torch.from_numpy(
                    np.asarray(scenes.render(scenes.example(seed)[0])[0], np.float32) / 127.5 - 1
                )
            )
        lines = outlines(torch.stack(pictures).permute(0, 3, 1, 2))
        self.assertEqual(lines.shape, (4, 1, 128, 128))
        self.assertAlmostEqual(outline_iou(lines, lines), 1.0)
        self.assertLess(outline_iou(lines, lines.roll(1, 0)), 0.4)
        self.assertEqual(outlines(torch.zeros(1, 3, 128, 128)).sum().item(), 0)

    def test_the_sketch_that_ships_is_of_a_man_a_cat_and_a_woman(self):
        shipped = _TOKENIZER.parents[1] / "concepts" / concepts.SKETCH
        with tempfile.TemporaryDirectory() as folder:
            for kinds, same in ((("man", "cat", "woman"), True), (("man", "dog", "woman"), False)):
                path = Path(folder) / "sketch.png"
                write_sketch(path, concepts.sketch_scene(kinds))
                drawn, known = (np.asarray(Image.open(p)) for p in (path, shipped))
                self.assertEqual((drawn == known).all(), same)

    def test_strengthened_adapters_have_larger_features(self):
        torch.manual_seed(0)
        adapter, condition = T2IAdapter(config.ADAPTER), (torch.rand(2, 1, 128, 128) < 0.1).float()
        with torch.no_grad():
            before = adapter(condition)
            adapter.load_state_dict(strengthened(adapter.state_dict(), 1.5))
            for old, new in zip(before, adapter(condition)):
                torch.testing.assert_close(new, 1.5 * old, rtol=1e-4, atol=1e-5)

    def test_wider_networks_do_what_the_narrow_ones_did(self):
        torch.manual_seed(0)
        halves = lambda c: c | {"block_out_channels": [w // 2 for w in c["block_out_channels"]]}
        even = halves(config.UNET)
        old, new = UNet2DConditionModel(even).eval(), UNet2DConditionModel(config.UNET).eval()
        new.load_state_dict(widened(old.state_dict(), new, even, config.UNET))
        context = torch.randn(2, 77, config.TEXT_WIDTH)
        inputs = torch.randn(2, 4, 16, 16), torch.tensor([20, 700]), context
        with torch.no_grad():
            before, after = old(*inputs), new(*inputs)
        self.assertLess((before - after).pow(2).mean().item(), 1e-4 * before.pow(2).mean().item())
        half = halves(config.VAE)
        old, new = AutoencoderKL(half).eval(), AutoencoderKL(config.VAE).eval()
        new.load_state_dict(widened(old.state_dict(), new, half, config.VAE))
        with torch.no_grad():
            latents = old.encode(pictures := torch.randn(1, 3, 32, 32))[0]
            torch.testing.assert_close(new.encode(pictures)[0], latents, rtol=1e-3, atol=1e-4)
            made, wanted = new.decode(latents), old.decode(latents)
            torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-4)

    def test_plain_products_attend_as_the_fused_kernel_does(self):
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, 3, 7, 16).bfloat16() for _ in range(3))
        for causal in (False, True):
            fused = torch.nn.functional.scaled_dot_product_attention
            wanted = fused(q.float(), k.float(), v.float(), is_causal=causal)
            self.assertLess((attend(q, k, v, causal).float() - wanted).abs().max().item(), 0.05)

    def test_views_of_a_stranger_are_squares_and_look_alikes_differ(self):
        rng = np.random.default_rng(3)
        for _ in range(20):
            features = identity.stranger(rng)
            self.assertEqual(identity.view(features, rng).shape, (128, 128, 3))
            other = identity.look_alike(features, rng)
            changed = sum(features[k] != other[k] for k in features)
            self.assertTrue(1 <= changed <= 2)

    def test_whitening_keeps_reconstructions_and_makes_latents_standard(self):
        torch.manual_seed(0)
        model = AutoencoderKL(config.VAE)
        pictures = torch.randn(8, 3, 32, 32)

        class Few:
            def __len__(self):
                return 8

            def images(self, indices):
                return pictures[indices]

        with torch.no_grad():
            before = model.decode(model.encode(pictures)[0])
            with tempfile.TemporaryDirectory() as folder:
                _whiten(Session(folder, 1, 1, "cpu", threads=1), model, Few())
            latents = model.encode(pictures)[0]
            after = model.decode(latents)
        self.assertLess((before - after).abs().max().item(), 1e-3)
        covariance = torch.cov((latents * config.LATENT_SCALE).transpose(0, 1).flatten(1))
        self.assertLess((covariance - torch.eye(4)).abs().max().item(), 1e-2)

    def test_the_sampler_finds_the_mean_that_a_perfect_predictor_knows(self):
        alphas = diffusion.alphas_cumulative("cpu")
        target = torch.randn(1, 4, 8, 8)

        def perfect(x, steps, context, features):
            a = alphas[steps][:, None, None, None]
            return (x - a.sqrt() * target) / (1 - a).sqrt()

        context = torch.zeros(1, 77, 8)
        found = diffusion.sample(perfect, context, context, torch.randn(1, 4, 8, 8), 10)
        self.assertLess((found - target).abs().max().item(), 1e-3)

    def test_processes_that_share_the_matrices_step_as_one_does(self):
        torch.manual_seed(0)
        shapes = ((20, 30), (64, 17), (32, 8, 3, 3))
        start, gradients = [torch.randn(s) for s in shapes], [torch.randn(s) for s in shapes]

        def step(**shared):
            parameters = [torch.nn.Parameter(p.clone()) for p in start]
            for p, g in zip(parameters, gradients):
                p.grad = g.clone()
            Muon([{"params": parameters}], 0.1, **shared).step()
            return parameters

        seen = []
        step(rank=1, workers=2, add_up=lambda flat: seen.append(flat.clone()))
        both = step(rank=0, workers=2, add_up=lambda flat: flat.add_(seen[0]))
        for alone, together in zip(step(), both):
            self.assertTrue(torch.equal(alone, together))

    def test_steps_of_matrices_alike_are_those_of_each_alone(self):
        torch.manual_seed(0)
        shapes = [(40, 40, 3, 3), (80, 40), (40, 80), (40, 80)]
        models = [[torch.nn.Parameter(p.clone()) for p in map(torch.randn, shapes)]]
        models.append([torch.nn.Parameter(p.detach().clone()) for p in models[0]])
        alone, alike = (Muon([{"params": model}], 0.1, weight_decay=0.1) for model in models)
        alike._shared_out = alike._alike_at_once
        before = [p.detach().clone() for p in models[0]]
        for _ in range(2):
            for p, q in zip(*models):
                p.grad = torch.randn_like(p)
                q.grad = p.grad.clone()
            alone.step(), alike.step()
        for p, q, start in zip(*models, before):
            torch.testing.assert_close(p, q)
            self.assertGreater((p - start).abs().max().item(), 0.01)

    def test_averages_change_places_without_moving(self):
        # Recorded passes read parameters where they were.
        parameter = torch.nn.Parameter(torch.zeros(3))
        average = Average([parameter], 0.5)
        with torch.no_grad():
            parameter += 1
        place = parameter.data_ptr()
        average.swap()
        self.assertEqual(
            (parameter.tolist(), average.values[0].tolist(), parameter.data_ptr()),
            ([0.0] * 3, [1.0] * 3, place),
        )

    def test_a_caption_without_a_place_is_not_asked_for_one(self):
        class Wrong(torch.nn.Module):  # sees the first of everything
            def forward(self, x):
                return [torch.eye(1, size).expand(len(x), -1) for size in _SIZES]

        scene, rng = scenes.example(scenes.PROMPTS)
        while scene["count"] == 3 or scene["place"] == PLACE_NAMES[0]:
            scene = scenes.sample_scene(rng)
        told = scenes.caption(scene, rng)[0] + " " + PLACES[scene["place"]][0]
        picture = torch.zeros(1, 3, 128, 128)
        self.assertEqual(_judged(Wrong(), picture, [scene], [told], [False])["place"], 0.0)
        self.assertTrue(
            math.isnan(_judged(Wrong(), picture, [scene], ["a photo"], [False])["place"])
        )

    def test_training_goes_on_where_it_was_stopped(self):
        with tempfile.TemporaryDirectory() as folder:
            state = []
            for _ in range(2):
                session = Session(folder, 0.4, 0.12, "cpu", threads=1)
                layer = torch.nn.Linear(4, 1)
                trainer = Trainer(
                    session,
                    "layer",
                    {"layer": layer},
                    [(list(layer.parameters()), 1.0)],
                    1e-2,
                    budget=60.0,
                )
                if state:
                    self.assertEqual(trainer.iteration, state[0])
                    self.assertTrue(torch.equal(layer.weight, state[1]))
                    self.assertTrue(
                        all(torch.equal(a, b) for a, b in zip(trainer.average.values, state[2]))
                    )
                for _ in trainer.steps():
                    x = torch.randn(16, 4)
                    trainer.step((layer(x) - x.sum(1, keepdim=True)).pow(2).mean(), 16, 1.0)
                self.assertFalse(trainer.done)
                state = [
                    trainer.iteration,
                    layer.weight.detach().clone(),
                    [v.clone() for v in trainer.average.values],
                ]
            self.assertGreater(state[0], 2)


if __name__ == "__main__":
    unittest.main()
