"""Moments as text, in UTC and to the second, as RFC 3339 writes them."""

from datetime import UTC, datetime


def moment(when: datetime | None = None) -> str:
    """A moment, by default this one.

    >>> moment(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    when = datetime.now(UTC) if when is None else when
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
