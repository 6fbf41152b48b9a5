"""Supersampled drawing: shapes, patterns, and the mask of whatever is being drawn.

Colours are RGB tuples of 0..255. Canvas coordinates are pixels of the finished picture (y downwards); a `Pen` draws
in a subject's own units instead (y upwards from where it stands), so that one drawing serves every size and side.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
OVERSAMPLING = 3

COLOURS = {
    "red": (205, 40, 40),
    "orange": (240, 140, 35),
    "yellow": (240, 215, 60),
    "green": (60, 155, 65),
    "blue": (50, 90, 205),
    "purple": (130, 60, 170),
    "pink": (240, 140, 180),
    "brown": (125, 80, 45),
    "black": (35, 35, 40),
    "white": (240, 240, 238),
    "gray": (135, 135, 140),
}
COLOUR_NAMES = list(COLOURS)


def jitter(rng, colour, amount=12):
    """The colour with each channel moved by up to `amount`."""
    return tuple(int(np.clip(c + rng.integers(-amount, amount + 1), 0, 255)) for c in colour)


def scaled(colour, factor):
    """The colour made darker (factor < 1) or lighter (factor > 1)."""
    return tuple(int(np.clip(c * factor, 0, 255)) for c in colour)


def mixed(a, b, t):
    """The colour at `t` of the way from `a` to `b`."""
    return tuple(int(x * (1 - t) + y * t) for x, y in zip(a, b))


def shade(colour, factor=0.75):
    """A darker tone of the colour; of near-black colours a lighter one, so that parts stay apart."""
    return scaled(colour, factor) if sum(colour) > 150 else mixed(colour, (92, 92, 97), 0.38)


class Paint(tuple):
    """A colour that also says which numbered part of a subject it is: what is drawn in it is found
    again in a map of parts.

    Tones made of it (`shade`, `scaled`, `mixed`) are plain colours and belong to no part: a part is
    what has its very colour.
    """

    def __new__(cls, colour, number):
        paint = super().__new__(cls, colour)
        paint.number = number
        return paint


@dataclass(frozen=True)
class Pattern:
    """A second colour laid over a fill: `kind` is rows, columns, spots or checks; `period` in subject units."""

    kind: str
    colour: tuple
    period: float


class Canvas:
    """A picture under way, `OVERSAMPLING` times as large as the finished one."""

    def __init__(self, size=SIZE):
        self.size = size
        self.image = Image.new("RGB", (size * OVERSAMPLING,) * 2)
        self._draw = ImageDraw.Draw(self.image)
        self._mask = None
        self._mask_draw = None
        self._parts = None
        self._parts_draw = None

    def begin_parts(self):
        """From now on, the number of every `Paint` is recorded where it is drawn, until something else
        is drawn over it."""
        self._parts = Image.new("L", self.image.size, 0)
        self._parts_draw = ImageDraw.Draw(self._parts)

    def end_parts(self):
        """Stops recording; the map of parts [size, size]: a part's number in pixels that are all of
        it, else 0."""
        fine = np.asarray(self._parts).reshape(self.size, OVERSAMPLING, self.size, OVERSAMPLING)
        self._parts, self._parts_draw = None, None
        return np.where(fine.min((1, 3)) == fine.max((1, 3)), fine.max((1, 3)), 0).astype(np.uint8)

    def begin_mask(self):
        """From now on, everything drawn is also recorded in a mask."""
        self._mask = Image.new("L", self.image.size, 0)
        self._mask_draw = ImageDraw.Draw(self._mask)

    def end_mask(self):
        """Stops recording; returns the mask at the finished size, 0..255."""
        mask, self._mask, self._mask_draw = self._mask, None, None
        return mask.reduce(OVERSAMPLING)

    def finished(self):
        """The picture at its final size."""
        return self.image.reduce(OVERSAMPLING)

    def gradient(self, top, bottom, above, below):
        """A vertical gradient between two heights."""
        rows = max(2, int(bottom - top))
        ramp = np.linspace(0, 1, rows)[:, None] * (np.array(below) - np.array(above)) + np.array(
            above
        )
        band = Image.fromarray(ramp[:, None, :].astype(np.uint8))
        band = band.resize(
            (self.size * OVERSAMPLING, int((bottom - top) * OVERSAMPLING)), Image.BILINEAR
        )
        self.image.paste(band, (0, int(top * OVERSAMPLING)))

    def polygon(self, points, colour, texture=None):
        self._fill(
            lambda d, c: d.polygon(
                [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points], fill=c
            ),
            colour,
            texture,
        )

    def ellipse(self, cx, cy, rx, ry, colour, texture=None):
        box = [v * OVERSAMPLING for v in (cx - rx, cy - ry, cx + rx, cy + ry)]
        self._fill(lambda d, c: d.ellipse(box, fill=c), colour, texture)

    def pie(self, cx, cy, rx, ry, start, end, colour):
        """A sector of an ellipse; angles in degrees, clockwise from three o'clock."""
        box = [v * OVERSAMPLING for v in (cx - rx, cy - ry, cx + rx, cy + ry)]
        self._fill(lambda d, c: d.pieslice(box, start, end, fill=c), colour, None)

    def ring(self, cx, cy, rx, ry, colour, width):
        box = [v * OVERSAMPLING for v in (cx - rx, cy - ry, cx + rx, cy + ry)]
        thick = max(2, int(width * OVERSAMPLING))
        self._fill(lambda d, c: d.ellipse(box, outline=c, width=thick), colour, None)

    def rectangle(self, x0, y0, x1, y1, colour, texture=None, radius=0.0):
        box = [v * OVERSAMPLING for v in (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))]
        if radius:
            self._fill(
                lambda d, c: d.rounded_rectangle(box, radius * OVERSAMPLING, fill=c),
                colour,
                texture,
            )
        else:
            self._fill(lambda d, c: d.rectangle(box, fill=c), colour, texture)

    def line(self, points, colour, width):
        """A line with round ends."""
        path = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        thick = max(1, int(width * OVERSAMPLING))
        r = width * OVERSAMPLING / 2

        def stroke(d, c):
            d.line(path, fill=c, width=thick, joint="curve")
            for x, y in (path[0], path[-1]):
                d.ellipse([x - r, y - r, x + r, y + r], fill=c)

        self._fill(stroke, colour, None)

    def _fill(self, shape, colour, texture):
        if texture is None:
            shape(self._draw, colour)
        else:
            pattern, x, y, unit = texture
            stencil = Image.new("L", self.image.size, 0)
            shape(ImageDraw.Draw(stencil), 255)
            self.image.paste(
                _patterned(self.image.size, colour, pattern, x, y, unit), (0, 0), stencil
            )
        if self._mask_draw is not None:
            shape(self._mask_draw, 255)
        if self._parts_draw is not None:
            shape(self._parts_draw, getattr(colour, "number", 0))


class Pen:
    """Draws on a canvas in a subject's units: (0, 0) is where it stands, y goes up, `facing` -1 mirrors it."""

    def __init__(self, canvas, x, base, unit, facing=1):
        self.canvas, self.x, self.base, self.unit, self.facing = canvas, x, base, unit, facing

    def _point(self, x, y):
        return self.x + self.facing * x * self.unit, self.base - y * self.unit

    def _texture(self, pattern):
        return None if pattern is None else (pattern, self.x, self.base, self.unit)

    def polygon(self, points, colour, pattern=None):
        self.canvas.polygon([self._point(x, y) for x, y in points], colour, self._texture(pattern))

    def ellipse(self, cx, cy, rx, ry, colour, pattern=None):
        self.canvas.ellipse(
            *self._point(cx, cy), rx * self.unit, ry * self.unit, colour, self._texture(pattern)
        )

    def pie(self, cx, cy, rx, ry, start, end, colour):
        self.canvas.pie(*self._point(cx, cy), rx * self.unit, ry * self.unit, start, end, colour)

    def ring(self, cx, cy, rx, ry, colour, width):
        self.canvas.ring(
            *self._point(cx, cy), rx * self.unit, ry * self.unit, colour, width * self.unit
        )

    def box(self, x0, y0, x1, y1, colour, pattern=None, radius=0.0):
        corners = (*self._point(x0, y0), *self._point(x1, y1))
        self.canvas.rectangle(*corners, colour, self._texture(pattern), radius * self.unit)

    def line(self, points, colour, width):
        self.canvas.line([self._point(x, y) for x, y in points], colour, width * self.unit)


def _patterned(size, base, pattern, x, y, unit):
    """A picture filled with the pattern, anchored at the subject so that it moves with it."""
    image = Image.new("RGB", size, base)
    draw = ImageDraw.Draw(image)
    w, h = size
    period = pattern.period * unit * OVERSAMPLING
    x, y = x * OVERSAMPLING, y * OVERSAMPLING
    if pattern.kind == "rows":
        for top in np.arange(y % period - period, h, period):
            draw.rectangle([0, top, w, top + period / 2], fill=pattern.colour)
    elif pattern.kind == "columns":
        for left in np.arange(x % period - period, w, period):
            draw.rectangle([left, 0, left + period / 2, h], fill=pattern.colour)
    elif pattern.kind == "spots":
        r = period * 0.3
        for row, cy in enumerate(np.arange(y % period - 2 * period, h + period, period * 0.8)):
            for cx in np.arange(
                x % period - 2 * period + (row % 2) * period / 2, w + period, period
            ):
                draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=pattern.colour)
    elif pattern.kind == "checks":
        for row, top in enumerate(np.arange(y % period - 2 * period, h, period / 2)):
            for left in np.arange(x % period - 2 * period + (row % 2) * period / 2, w, period):
                draw.rectangle(
                    [left, top, left + period / 2, top + period / 2], fill=pattern.colour
                )
    else:
        raise ValueError(f"no such pattern: {pattern.kind}")
    return image
