"""The error that a broken law raises."""


class LawError(AssertionError):
    """A registered thing breaks a law: says which law, and the first position where it broke.

    `position` is the index (episode, time, ...) of the first difference, or None where the law has no position.
    """

    def __init__(self, law: str, message: str, *, position: tuple[int, ...] | None = None) -> None:
        where = "" if position is None else f" (first at position {', '.join(map(str, position))})"
        super().__init__(f"law of {law}: {message}{where}")
        self.law = law
        self.position = position
