"""What every plate generator has to do, as tests."""

from __future__ import annotations

import random

from carpark.domain.events import canonical_plate
from carpark.plugins.base import PlateGenerator

_NO_PLATES = ("", " ", "-", "?", "A" * 25, "AB\n12", "😀", "½" * 3, "\x00")


class PlatesConformance:
    """Tests of a plate generator, for pytest: subclass it in a test module, with a name that begins with ``Test``.

    `make_plates` has to be given.

    Attributes:
        samples: How many plates a test makes up.
    """

    samples: int = 1000

    def make_plates(self, chance: random.Random) -> PlateGenerator:
        """Make the plate generator under test.

        Args:
            chance: Where all its chance comes from.

        Returns:
            The generator.

        Raises:
            TypeError: The subclass does not say how.
        """
        raise TypeError(f"{type(self).__name__} has to define make_plates(chance)")

    def test_every_sample_is_a_plate_and_valid_as_written_and_in_canonical_form(self) -> None:
        """The validator knows what the generator makes."""
        plates = self._plates()
        for plate in self._sample(plates):
            canonical = canonical_plate(plate)
            _check(plates.is_valid(plate), f"sample() returned {plate!r}, which is_valid() refuses")
            _check(plates.is_valid(canonical), f"is_valid() refuses {canonical!r}, the canonical form of {plate!r}")

    def test_is_valid_refuses_what_is_no_plate_at_all(self) -> None:
        """Anything may be asked, and nothing raises."""
        plates = self._plates()
        taken = [text for text in _NO_PLATES if plates.is_valid(text)]
        _check(not taken, f"is_valid() takes {taken!r}")

    def test_a_seed_fixes_the_plates(self) -> None:
        """A run can be repeated."""
        _check(self._sample(self._plates(7)) == self._sample(self._plates(7)), "one seed gave two sequences")

    def test_another_seed_gives_other_plates(self) -> None:
        """Chance is used."""
        if self._plates().population != 1:
            _check(self._sample(self._plates(7)) != self._sample(self._plates(8)), "two seeds gave one sequence")

    def test_two_generators_do_not_disturb_each_other(self) -> None:
        """Entries and missed entries have a generator each."""
        alone = self._sample(self._plates(7))
        one, other = self._plates(7), self._plates(8)
        beside = [(one.sample(), other.sample())[0] for _ in alone]
        _check(alone == beside, "a generator's plates depend on another generator: do they share their chance?")

    def test_chance_that_others_use_is_left_alone(self) -> None:
        """Nothing is drawn from, or seeded in, the module `random`."""
        before = random.getstate()
        self._sample(self._plates())
        _check(random.getstate() == before, "sample() drew from the random module, not from the chance it was given")

    def test_the_population_is_as_large_as_it_says(self) -> None:
        """The entry generator waits when all plates are inside, and must know how many there are."""
        plates = self._plates()
        if plates.population is None:
            different = len({canonical_plate(plate) for plate in self._sample(plates)})
            _check(
                different > self.samples // 2,
                f"{self.samples} samples held only {different} plates: say how many there are with `population`",
            )
        else:
            drawn = {canonical_plate(plates.sample()) for _ in range(20 * plates.population)}
            _check(
                len(drawn) == plates.population,
                f"population is {plates.population}, but {20 * plates.population} samples held {len(drawn)} plates",
            )

    def _plates(self, seed: int = 1) -> PlateGenerator:
        return self.make_plates(random.Random(seed))

    def _sample(self, plates: PlateGenerator) -> list[str]:
        return [plates.sample() for _ in range(self.samples)]


def _check(condition: bool, complaint: str) -> None:
    if not condition:
        raise AssertionError(complaint)
