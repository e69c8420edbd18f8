"""Layouts of navigation worlds: upstream's rejection sampling, on the same random stream, without arrays of two.

Where buttons, gremlins and hazards crowd, upstream throws away thousands of layouts; most of a reset goes there.
"""

import math

import numpy as np

MAX_LAYOUTS, MAX_PLACES = 10_000, 100  # upstream's, per world and per object
BLOCK = 4096  # doubles drawn at a time


def use_fast_layouts(generator) -> None:
    """Let an upstream ``RandomGenerator`` sample its layouts here, unless an object has several areas to lie in."""
    upstream = generator.build_layout

    def build_layout():
        boxes = _boxes(generator)
        if boxes is None:
            return upstream()
        layout = sample_layout(generator.random_generator, boxes, generator.placements_margin)
        if layout is None:
            return upstream()  # raises, as it would have
        generator.layout = layout
        return layout

    generator.build_layout = build_layout


def sample_layout(random: np.random.RandomState, boxes: dict, margin: float) -> dict[str, np.ndarray] | None:
    """Place objects one after the other, each where it keeps clear of those before; start anew where one finds none.

    Args:
        random: advanced by as many doubles as upstream draws.
        boxes: ``(xmin, xmax, ymin, ymax, keepout)`` per object, in the order of placing.
        margin: between the keepouts of two objects, m.

    Returns:
        Each object's place, (2,), m; None when every layout failed, and ``random`` is left as it was.
    """
    names = list(boxes)
    areas = [(xmin, xmax - xmin, ymin, ymax - ymin) for xmin, xmax, ymin, ymax, _ in boxes.values()]
    keepouts = [float(box[4]) for box in boxes.values()]
    clearances = [[other + margin + keepout for other in keepouts[:k]] for k, keepout in enumerate(keepouts)]
    start = random.get_state()
    draws = random.random_sample(BLOCK).tolist()
    at, n_drawn, sqrt = 0, 0, math.sqrt
    for _ in range(MAX_LAYOUTS):
        placed: list[tuple[float, float]] = []
        for (x_low, x_range, y_low, y_range), clearance in zip(areas, clearances, strict=True):
            for _ in range(MAX_PLACES):
                if at == BLOCK:
                    draws, at, n_drawn = random.random_sample(BLOCK).tolist(), 0, n_drawn + BLOCK
                x = x_low + x_range * draws[at]
                y = y_low + y_range * draws[at + 1]
                at += 2
                for (other_x, other_y), clear in zip(placed, clearance, strict=True):
                    dx, dy = x - other_x, y - other_y
                    if sqrt(dx * dx + dy * dy) < clear:
                        break
                else:
                    placed.append((x, y))
                    break
            else:
                break
        else:
            random.set_state(start)
            _skip(random, n_drawn + at)
            return {name: np.array(place) for name, place in zip(names, placed, strict=True)}
    random.set_state(start)
    return None


def _skip(random: np.random.RandomState, n_draws: int) -> None:
    for first in range(0, n_draws, BLOCK):
        random.random_sample(min(BLOCK, n_draws - first))


def _boxes(generator) -> dict[str, tuple[float, float, float, float, float]] | None:
    boxes = {}
    for name, (placements, keepout) in generator.placements.items():
        if placements is None:
            placements = [generator.placements_extents]
        if len(placements) > 1:
            return None
        xmin, ymin, xmax, ymax = generator.constrain_placement(placements[0], keepout)
        if xmin > xmax or ymin > ymax:
            return None
        boxes[name] = (xmin, xmax, ymin, ymax, keepout)
    return boxes
