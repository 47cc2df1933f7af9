"""A fixture that ends a test as soon as a checkpoint makes anything run."""

import os
import pickle
import subprocess

import pytest


@pytest.fixture(autouse=True)
def nothing_is_executed(monkeypatch):
    """Whatever a hostile file could call ends the test."""

    def trap(*args, **kwargs):
        pytest.fail(f"executed with {args}")

    for module, attribute in (
        (os, "system"),
        (os, "popen"),
        (subprocess, "Popen"),
        (pickle, "loads"),
        (pickle, "load"),
        (pickle, "Unpickler"),
    ):
        monkeypatch.setattr(module, attribute, trap)
