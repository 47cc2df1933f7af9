"""Pictures and datasets: decoding, readers of the paper's datasets, the generated dataset."""

from dmbp_jax.data.csv_folder import list_csv_folder as list_csv_folder
from dmbp_jax.data.decoding import open_image as open_image
from dmbp_jax.data.generated import CLASSES as CLASSES
from dmbp_jax.data.generated import generate as generate
from dmbp_jax.data.imagenet import list_imagenet as list_imagenet
from dmbp_jax.data.loading import Loaded as Loaded
from dmbp_jax.data.loading import load_pictures as load_pictures
from dmbp_jax.data.samples import Box as Box
from dmbp_jax.data.samples import Dataset as Dataset
from dmbp_jax.data.samples import FilePicture as FilePicture
from dmbp_jax.data.samples import Picture as Picture
from dmbp_jax.data.samples import Skipped as Skipped
from dmbp_jax.data.samples import Target as Target
from dmbp_jax.data.samples import choose_targets as choose_targets
from dmbp_jax.data.samples import list_generated as list_generated
from dmbp_jax.data.voc import list_voc as list_voc
