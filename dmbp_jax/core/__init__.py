"""The method itself: sites, masks, the three-pass loop and the call `attribute`."""
