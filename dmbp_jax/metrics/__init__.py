"""How faithful a heat map is, in numbers: the paper's metrics and the usual checks beside them."""

from dmbp_jax.engine.baselines import blur_images as blur_images
from dmbp_jax.engine.baselines import blur_taps as blur_taps
from dmbp_jax.metrics.completeness import carried as carried
from dmbp_jax.metrics.curves import Curve as Curve
from dmbp_jax.metrics.curves import complementary_insertion as complementary_insertion
from dmbp_jax.metrics.curves import deletion as deletion
from dmbp_jax.metrics.curves import insertion as insertion
from dmbp_jax.metrics.last_layer import redraw_last_layer as redraw_last_layer
from dmbp_jax.metrics.localisation import PointingGame as PointingGame
from dmbp_jax.metrics.localisation import attribution_inside as attribution_inside
from dmbp_jax.metrics.localisation import grid_pointing_game as grid_pointing_game
from dmbp_jax.metrics.localisation import mosaic as mosaic
from dmbp_jax.metrics.localisation import pointing_game as pointing_game
from dmbp_jax.metrics.ranks import rank_correlation as rank_correlation
from dmbp_jax.metrics.reinitialisation import Reinitialisation as Reinitialisation
from dmbp_jax.metrics.reinitialisation import layer_reinitialisation as layer_reinitialisation
