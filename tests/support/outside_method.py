"""A method from outside the package, as a user would write it."""


def brightness(params, x, label, *, apply_fn=None, key=None, chunk_size=None, gain=1.0):
    """Claims that what is bright is important."""
    return gain * x.sum(-1)
