"""Where labels go so that none covers another: a column of labels pushed apart, and labels around points."""

from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""left, bottom, right, top."""


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Positions in the order of `wanted`, at least `gap` apart within low..high and as near to it as that allows.

    Labels that would touch form a block around the mean of what they want; blocks that touch merge. Where they do not
    all fit, the gap shrinks.

    >>> spread([5.0, 5.0, 9.0], gap=2.0, low=0.0, high=10.0)
    [4.0, 6.0, 9.0]
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []
    for index in order:
        blocks.append([wanted[index]])
        while len(blocks) > 1 and _start(blocks[-1], gap, low, high) < _end(blocks[-2], gap, low, high) + gap - 1e-9:
            blocks[-2:] = [[*blocks[-2], *blocks[-1]]]
    places = [_start(block, gap, low, high) + k * gap for block in blocks for k in range(len(block))]
    found = [0.0] * len(wanted)
    for index, place in zip(order, places, strict=True):
        found[index] = place
    return found


def _start(block: list[float], gap: float, low: float, high: float) -> float:
    extent = gap * (len(block) - 1)
    return min(max(sum(block) / len(block) - extent / 2, low), high - extent)


def _end(block: list[float], gap: float, low: float, high: float) -> float:
    return _start(block, gap, low, high) + gap * (len(block) - 1)


_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_DISTANCES = (9.0, 20.0, 34.0, 50.0)


def around(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], *, obstacles: Sequence[Box], area: Box
) -> list[Box]:
    """A box of each size beside each point, chosen greedily to cover the least of what is there already.

    points: centres in pixels; sizes: width and height of the labels; obstacles: boxes to keep clear of; area: boxes
    leave it only where nothing else is possible.
    """
    placed: list[Box] = []
    marks = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        options = [
            (_cost(box, [*obstacles, *marks, *placed], area) + distance / 10, order, box)
            for order, (distance, box) in enumerate(_options(x, y, width, height))
        ]
        placed.append(min(options)[2])
    return placed


def _options(x: float, y: float, width: float, height: float) -> list[tuple[float, Box]]:
    found = []
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            left = x + right * distance - (width if right < 0 else width / 2 if right == 0 else 0)
            bottom = y + up * distance - (height if up < 0 else height / 2 if up == 0 else 0)
            found.append((distance, (left, bottom, left + width, bottom + height)))
    return found


def _cost(box: Box, others: Sequence[Box], area: Box) -> float:
    size = (box[2] - box[0]) * (box[3] - box[1])
    outside = size - _overlap(box, area)
    return sum(_overlap(box, other) for other in others) + 10 * outside


def _overlap(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0.0, width) * max(0.0, height)
