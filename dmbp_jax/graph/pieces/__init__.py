"""Operations that are affine once their choice at x is fixed, one file per family."""
