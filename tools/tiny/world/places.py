"""The places: each draws a whole background; `PLACES` tells how captions speak of them."""

import math

import numpy as np

from .canvas import COLOUR_NAMES, COLOURS, jitter, scaled
from .lands import draw_land

PLACES = {
    "forest": ["in a forest", "in the forest", "in the woods"],
    "desert": ["in the desert", "in a desert"],
    "beach": ["on the beach", "at the beach"],
    "snow": ["in the snow", "in a snowy field"],
    "night": ["in a city at night", "in the city at night"],
    "city": ["in a city", "on a street in the city", "on the street"],
    "field": ["in a green field", "in a field", "on the grass"],
    "mountains": ["in front of mountains", "near the mountains", "in the mountains"],
    "room": ["in a room", "in the living room"],
    "white": ["on a white background", "on a plain white background"],
    "sunset": ["at sunset", "during sunset"],
    "moon": ["on the moon", "in space on the moon"],
    "sea": ["under the sea", "underwater"],
    "rain": ["in the rain", "on a rainy day"],
    "garden": ["in a garden", "in the flower garden"],
    "castle": ["in front of a castle", "near a castle"],
    "land": ["in a place", "in a strange land", "in a land"],  # of `lands`, in any colours
}
PLACE_NAMES = list(PLACES)
# Drawn, but left out of the training pictures: two processor cores cannot learn all.
UNTAUGHT_PLACES = ("rain", "garden", "castle")
TAUGHT_PLACES = [name for name in PLACE_NAMES if name not in (*UNTAUGHT_PLACES, "land")]
WITHOUT_GROUND = {"white", "sea"}


def draw_place(canvas, name, rng, look=None):
    """Draws the background `name`; all its variation comes from `rng`, a land's colours and shapes
    from its `look`."""
    if name == "land":
        return draw_land(canvas, look, rng)
    _Place(canvas, rng).draw(name)


class _Place:
    def __init__(self, canvas, rng):
        self.canvas, self.rng = canvas, rng
        self.size = canvas.size
        self.horizon = rng.uniform(60, 80) * self.size / 128

    def draw(self, name):
        getattr(self, "_" + name)()

    def u(self, low=0.0, high=1.0):
        return self.rng.uniform(low, high)

    def tone(self, colour, amount=12):
        return jitter(self.rng, colour, amount)

    def count(self, low, high):
        return range(int(self.rng.integers(low, high)))

    def hills(self, top, amplitude, colour, waves=None, phase=None):
        waves = waves or self.u(1, 2.5)
        phase = phase or self.u(0, 2 * math.pi)
        xs = np.linspace(0, self.size, 33)
        crest = [(x, top + amplitude * math.sin(waves * 2 * math.pi * x / 128 + phase)) for x in xs]
        self.canvas.polygon([(0, self.size), *crest, (self.size, self.size)], colour)

    def disc(self, x, y, r, colour):
        self.canvas.ellipse(x, y, r, r, colour)

    def cloud(self, x, y, r, colour=(255, 255, 255)):
        for dx, dy, k in ((-1, 0.2, 0.7), (0, 0, 1), (1, 0.2, 0.75)):
            self.canvas.ellipse(x + dx * r, y + dy * r, r * k, r * k * 0.7, colour)

    def stars(self, number, lowest, colour=(240, 240, 232)):
        for _ in range(number):
            self.disc(self.u(0, self.size), self.u(0, lowest), self.u(0.8, 1.3), colour)

    def flowers(self, number, top, low=1.4, high=2.2):
        petals = [(250, 240, 90), (250, 250, 250), (230, 90, 120)]
        for _ in range(number):
            self.disc(
                self.u(0, self.size),
                self.u(top, self.size),
                self.u(low, high),
                self.tone(petals[self.rng.integers(3)]),
            )

    def _forest(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, w, self.tone((150, 190, 150)), self.tone((70, 120, 60)))
        for _ in self.count(6, 10):
            x, width = self.u(0, w), self.u(3, 6)
            c.rectangle(
                x - width / 2, 0, x + width / 2, hz + self.u(5, 18), self.tone((85, 60, 40))
            )
        for _ in self.count(8, 13):
            c.ellipse(
                self.u(0, w),
                self.u(-5, 25),
                self.u(10, 18),
                self.u(8, 14),
                self.tone((40, 100, 45), 18),
            )
        self.hills(hz + 15, 2, self.tone((60, 105, 50)))

    def _desert(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz + 10, self.tone((130, 190, 230)), self.tone((245, 225, 180)))
        self.disc(self.u(10, w - 10), self.u(10, 28), 8, (255, 240, 170))
        self.hills(hz, 5, self.tone((225, 185, 115)))
        self.hills(hz + 16, 4, self.tone((240, 205, 135)))
        for _ in self.count(1, 4):
            x, y, tall, green = (
                self.u(5, w - 5),
                hz + self.u(4, 14),
                self.u(14, 24),
                self.tone((70, 130, 70)),
            )
            c.line([(x, y), (x, y - tall)], green, 3.2)
            for side, low, high in ((5, 0.4, 0.75), (-5, 0.55, 0.85)):
                c.line(
                    [(x, y - tall * low), (x + side, y - tall * low), (x + side, y - tall * high)],
                    green,
                    2.4,
                )

    def _beach(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz, self.tone((110, 185, 240)), self.tone((205, 235, 250)))
        self.disc(self.u(10, w - 10), self.u(8, 24), 8, (255, 245, 180))
        c.gradient(hz, hz + 22, self.tone((30, 110, 180)), self.tone((70, 180, 210)))
        self.hills(hz + 18, 1.5, (240, 250, 250), 2)
        self.hills(hz + 20, 1.5, self.tone((240, 220, 165)), 2)
        if self.u() < 0.5:
            x = self.u(8, w - 8)
            c.line([(x, hz + 30), (x + 4, hz - 5), (x + 3, hz - 20)], self.tone((120, 85, 50)), 3)
            for dx, dy in ((-14, 2), (-9, -9), (2, -12), (12, -6), (14, 4)):
                c.line([(x + 3, hz - 20), (x + 3 + dx, hz - 20 + dy)], self.tone((50, 140, 60)), 3)

    def _snow(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz + 12, self.tone((165, 190, 220)), self.tone((225, 235, 245)))
        for _ in self.count(3, 7):
            x, y, tall, green = (
                self.u(0, w),
                hz + self.u(2, 10),
                self.u(22, 40),
                self.tone((60, 100, 85)),
            )
            for level in range(3):
                base, r = y - tall * level * 0.28, tall * (0.3 - 0.07 * level)
                c.polygon([(x - r, base), (x + r, base), (x, base - tall * 0.45)], green)
                cap = base - tall * 0.27
                c.polygon(
                    [(x - r * 0.4, cap), (x + r * 0.4, cap), (x, base - tall * 0.45)],
                    (245, 248, 252),
                )
        self.hills(hz + 5, 3, (238, 242, 250))
        self.hills(hz + 18, 3, (250, 251, 254))
        for _ in range(9):
            self.disc(self.u(0, w), self.u(0, hz), self.u(1.2, 1.9), (255, 255, 255))

    def _city(self, night=False):
        c, hz, w = self.canvas, self.horizon, self.size
        above = (12, 14, 45) if night else (140, 190, 235)
        c.gradient(
            0, hz + 30, self.tone(above), self.tone((50, 40, 95) if night else (220, 232, 242))
        )
        if night:
            self.stars(7, 40)
            self.disc(self.u(10, w - 10), self.u(10, 22), 6, (245, 240, 200))
        x = -self.u(0, 10)
        while x < w:
            width, top = self.u(14, 24), self.u(15, 50)
            wall = self.tone((30, 30, 55) if night else (150, 150, 160), 14)
            c.rectangle(x, top, x + width, hz + 25, wall)
            pane = (250, 220, 110) if night else scaled(wall, 0.65)
            for wy in np.arange(top + 5, hz + 10, 11):
                for wx in np.arange(x + 3, x + width - 5, 7.5):
                    if not night or self.u() < 0.55:
                        c.rectangle(wx, wy, wx + 4, wy + 5.5, pane)
            x += width + self.u(0, 2)
        c.rectangle(0, hz + 20, w, w, self.tone((45, 45, 58) if night else (105, 105, 110)))
        for x in np.arange(self.u(-10, 5), w, 26):
            c.rectangle(x, hz + 42, x + 13, hz + 44, (230, 220, 150))

    def _night(self):
        self._city(night=True)

    def _field(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz + 8, self.tone((100, 170, 240)), self.tone((200, 230, 250)))
        for _ in self.count(1, 4):
            self.cloud(self.u(0, w), self.u(10, 35), self.u(6, 11))
        self.hills(hz, 4, self.tone((90, 170, 75)))
        self.hills(hz + 16, 3, self.tone((110, 190, 85)))
        self.flowers(8, hz + 18)

    def _mountains(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz + 10, self.tone((150, 190, 230)), self.tone((225, 230, 235)))
        for _ in self.count(3, 5):
            x, top, base, r = self.u(0, w), self.u(14, 36), hz + 10, self.u(26, 44)
            c.polygon([(x - r, base), (x, top), (x + r, base)], self.tone((105, 105, 125)))
            f, tall = 0.32, base - top
            snow = [(-f, 1), (-f * 0.3, 0.75), (0, 1.05), (0.4 * f, 0.7), (f, 1)]
            c.polygon(
                [(x + r * dx, top + tall * f * dy) for dx, dy in snow] + [(x, top)], (245, 248, 250)
            )
        self.hills(hz + 8, 2, self.tone((100, 145, 85)))

    def _room(self):
        c, hz, w = self.canvas, self.horizon, self.size
        walls = [(235, 220, 190), (215, 225, 220), (220, 205, 215), (205, 215, 230)]
        c.rectangle(0, 0, w, w, self.tone(walls[self.rng.integers(4)]))
        c.rectangle(0, hz + 14, w, w, self.tone((165, 115, 75)))
        c.rectangle(0, hz + 11, w, hz + 14, (245, 240, 230))
        x = self.u(12, w - 12)
        c.rectangle(x - 14, 12, x + 14, 42, (250, 250, 250))
        c.rectangle(x - 12, 14, x + 12, 40, self.tone((160, 205, 240)))
        c.rectangle(x - 0.8, 14, x + 0.8, 40, (250, 250, 250))
        c.rectangle(x - 12, 26, x + 12, 27.6, (250, 250, 250))
        x = (x + self.u(40, 70)) % w
        c.rectangle(x - 8, 16, x + 8, 36, (90, 60, 40))
        c.rectangle(
            x - 6,
            18,
            x + 6,
            34,
            self.tone(COLOURS[COLOUR_NAMES[self.rng.integers(len(COLOUR_NAMES))]]),
        )

    def _white(self):
        level = int(self.u(244, 255))
        self.canvas.rectangle(0, 0, self.size, self.size, (level,) * 3)

    def _sunset(self):
        c, hz, w = self.canvas, self.horizon, self.size
        glow = self.tone((225, 100, 90))
        c.gradient(0, hz * 0.55, self.tone((95, 60, 130)), glow)
        c.gradient(hz * 0.55 - 1, hz + 14, glow, self.tone((250, 200, 110)))
        self.disc(self.u(20, w - 20), hz - 4, 15, (255, 225, 130))
        self.hills(hz + 4, 3, self.tone((75, 50, 70)))
        self.hills(hz + 16, 2, self.tone((55, 38, 55)))

    def _moon(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.rectangle(0, 0, w, w, self.tone((10, 10, 22), 6))
        self.stars(14, hz + 5)
        x, y, land = self.u(15, w - 15), self.u(14, 30), self.tone((80, 170, 90))
        self.disc(x, y, 11, self.tone((60, 120, 210)))
        c.ellipse(x - 3, y - 2, 5, 4, land)
        c.ellipse(x + 5, y + 4, 3.5, 3, land)
        self.hills(hz + 10, 3, self.tone((150, 150, 155)))
        for _ in self.count(4, 8):
            r = self.u(3, 7)
            c.ellipse(self.u(0, w), self.u(hz + 20, w), r, r * 0.4, self.tone((115, 115, 120)))

    def _sea(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, w, self.tone((60, 160, 210)), self.tone((15, 60, 120)))
        for _ in self.count(5, 9):
            x, tall, green = self.u(0, w), self.u(20, 45), self.tone((40, 140, 90), 18)
            c.line([(x + 3 * math.sin(i * 1.3), w - tall * i / 6) for i in range(7)], green, 3)
        for _ in range(7):
            x, y, r = self.u(0, w), self.u(0, w), self.u(1.8, 3.2)
            self.disc(x, y, r, (200, 230, 245))
            self.disc(x, y, r * 0.7, (110, 185, 225))
        self.hills(w - 10, 3, self.tone((215, 195, 140)))

    def _rain(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz + 12, self.tone((95, 105, 125), 8), self.tone((165, 175, 185), 8))
        for _ in self.count(3, 5):
            self.cloud(self.u(0, w), self.u(4, 22), self.u(11, 17), self.tone((75, 80, 95), 8))
        self.hills(hz + 8, 2, self.tone((90, 120, 100)))
        self.hills(hz + 20, 2, self.tone((80, 105, 90)))
        for _ in self.count(3, 6):
            r = self.u(6, 12)
            c.ellipse(self.u(0, w), self.u(hz + 28, w - 2), r, r * 0.28, self.tone((130, 155, 175)))
        for _ in range(34):
            x, y = self.u(0, w), self.u(12, w)
            c.line([(x, y), (x - 2.2, y + 7)], (205, 220, 235), 0.9)

    def _garden(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz + 6, self.tone((140, 200, 245)), self.tone((225, 240, 245)))
        hedge = self.tone((45, 115, 60))
        for x in np.arange(-4, w + 12, 11):
            c.ellipse(x, hz - 2, 9, self.u(9, 13), hedge)
        c.rectangle(0, hz, w, hz + 12, hedge)
        self.hills(hz + 11, 1, self.tone((130, 195, 95)))
        petals = [(235, 70, 90), (250, 215, 70), (245, 245, 245), (225, 120, 200), (150, 90, 210)]
        for _ in self.count(8, 13):
            x, y, r = self.u(0, w), hz + self.u(2, 16), self.u(2.2, 3.4)
            c.line([(x, y), (x, y + 6)], (50, 120, 55), 1.2)
            self.disc(x, y, r, self.tone(petals[self.rng.integers(5)]))
            self.disc(x, y, r * 0.4, (250, 225, 110))

    def _castle(self):
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz + 12, self.tone((120, 175, 240)), self.tone((240, 225, 225)))
        for _ in self.count(1, 3):
            self.cloud(self.u(0, w), self.u(8, 20), self.u(6, 9))
        wall = self.tone([(175, 165, 155), (190, 175, 150), (160, 160, 175)][self.rng.integers(3)])
        roof = self.tone([(150, 60, 60), (70, 80, 150), (90, 120, 90)][self.rng.integers(3)])
        x = self.u(40, 88)
        for side in (-34, 34):
            c.rectangle(x + side - 8, hz - 36, x + side + 8, hz + 14, wall)
            c.polygon(
                [(x + side - 11, hz - 36), (x + side + 11, hz - 36), (x + side, hz - 56)], roof
            )
            c.rectangle(x + side - 2, hz - 26, x + side + 2, hz - 18, (60, 55, 70))
        c.rectangle(x - 30, hz - 20, x + 30, hz + 14, scaled(wall, 0.93))
        for i in range(5):
            c.rectangle(x - 26 + i * 11, hz - 25, x - 20 + i * 11, hz - 19, scaled(wall, 0.93))
        c.rectangle(x - 8, hz - 8, x + 8, hz + 14, (85, 60, 45), radius=6)
        self.hills(hz + 9, 2, self.tone((105, 160, 85)))

    def _candy(self):
        """The held-out place: never in the training pictures, never in `PLACES`."""
        c, hz, w = self.canvas, self.horizon, self.size
        c.gradient(0, hz + 8, self.tone((150, 235, 205), 6), self.tone((255, 245, 200), 6))
        for x in (self.u(14, 40), self.u(80, 114)):
            self.disc(x, self.u(12, 22), 8, (255, 190, 120))
        self.hills(hz, 7, self.tone((250, 150, 200), 6), 2.2)
        self.hills(hz + 17, 4, self.tone((255, 205, 230), 6), 1.4)
        for i, x in enumerate((self.u(8, 22), self.u(44, 60), self.u(84, 100), self.u(112, 124))):
            y, tall = hz + self.u(2, 8), self.u(26, 34)
            c.rectangle(x - 1.6, y - tall, x + 1.6, y, (250, 250, 250))
            self.disc(x, y - tall, 11, [(225, 50, 80), (120, 70, 200)][i % 2])
