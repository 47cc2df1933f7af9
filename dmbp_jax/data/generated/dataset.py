"""Pictures by seed and index: one of them, or a dataset as a sequence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dmbp_jax.checks import check_count
from dmbp_jax.data.generated.drawing import Sample, render
from dmbp_jax.data.generated.scenes import compose


def generate(seed: int, index: int, classes: Sequence[int | str] | None = None) -> Sample:
    """Picture `index` of the endless dataset `seed`.

    image = background ⊕ distractors ⊕ objects, each painted with an antialiased cover

    Between one and four objects of different classes lie on a clutter of colour noise and
    distractors (a right shape without its texture, a texture on a wrong shape). Colour, size,
    rotation and place are random and say nothing about the class. The picture depends on
    (seed, index, classes) alone: not on other pictures, not on any global random state.

    Args:
      seed: which dataset, an int >= 0.
      index: which picture of it, an int >= 0.
      classes: names or indices of one to four different classes to show, in drawing order;
        None draws them, never both of a pair of rivals.

    Returns:
      A `Sample`: `image` (96, 96, 3) uint8, `labels` (10,) bool, and `masks` (10, 96, 96) bool
      with the visible pixels of each object; masks do not overlap.

    Raises:
      InputTypeError: an argument is of a wrong type.
      InputError: a negative seed or index, an unknown class, a class named twice, no class at all
        or more than four.

    Example:
      >>> from dmbp_jax.data.generated import CLASSES
      >>> sample = generate(seed=0, index=7, classes=("star", "striped disc"))
      >>> sample.image.shape, [CLASSES[k] for k in sample.labels.nonzero()[0]]
      ((96, 96, 3), ['striped disc', 'star'])

    The dataset is ours; the paper uses none like it.
    """
    return render(compose(seed, index, classes))


@dataclass(frozen=True)
class GeneratedDataset:
    """The first `size` pictures of dataset `seed`, as a sequence of `Sample`s made on demand.

    dataset[k] = generate(seed, k)

    Args:
      seed: an int >= 0. The built-in network was trained on seed 0 and evaluated on seed 1.
      size: number of pictures, an int >= 1.

    Raises:
      InputTypeError, InputError: as for `generate`.

    Example:
      >>> dataset = GeneratedDataset(seed=1, size=10)
      >>> len(dataset), dataset[-1].image.dtype
      (10, dtype('uint8'))
    """

    seed: int
    size: int

    def __post_init__(self) -> None:
        """Check both numbers when the dataset is made, not when a picture is."""
        check_count(self.seed, "seed", minimum=0)
        check_count(self.size, "size")

    def __len__(self) -> int:
        """Number of pictures."""
        return self.size

    def __iter__(self) -> Iterator[Sample]:
        """The samples in order."""
        return (self[index] for index in range(self.size))

    def __getitem__(self, index: int) -> Sample:
        """Picture `index`; negative ones count from the end."""
        if not -self.size <= index < self.size:
            raise IndexError(f"index: Expected {-self.size} <= index < {self.size}, got {index}.")
        return generate(self.seed, index % self.size)
