"""Pictures and datasets: decoding, readers of the paper's datasets, the generated dataset."""

from dmbp_jax.data.decoding import open_image as open_image
