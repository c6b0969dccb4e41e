"""What all tests share: where the project is, and the model that ships with it."""
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Another folder holds a numpy_llama.py that is wrong on purpose: test_mutations.py.
sys.path[:0] = [os.environ.get("NUMPY_LLAMA_DIR", str(ROOT)), str(ROOT / "tests")]
sys.path.append(str(ROOT / "notebooks"))                  # `from explorer import build`; the course has a build too
if "PYTEST_XDIST_WORKER" in os.environ:               # files of tests run side by side: a core for each
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
os.environ["HF_HUB_OFFLINE"] = "1"                    # everything the tests need is in the repository

import numpy_llama  # noqa: E402

FAIRYTALES = ROOT / "weights" / "fairytales"


@pytest.fixture(scope="session")
def fairytales():
    """(weights, config) of the model that ships."""
    return numpy_llama.load(FAIRYTALES)


@pytest.fixture(scope="session")
def tokenizer():
    return numpy_llama.Tokenizer(FAIRYTALES / "tokenizer.model")
