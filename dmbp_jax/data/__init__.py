"""Pictures and datasets: decoding, readers of the paper's datasets, the generated dataset."""

from dmbp_jax.data.decoding import open_image as open_image
from dmbp_jax.data.generated import CLASSES as CLASSES
from dmbp_jax.data.generated import GeneratedDataset as GeneratedDataset
from dmbp_jax.data.generated import generate as generate
