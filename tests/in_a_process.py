"""One run of pytest, for a process that has PyTorch already: what test_mutations.py starts for each mistake.

It imports nothing of the project, because the first thing a run decides is which numpy_llama.py it finds.
"""
import os
import sys


def run_pytest(environment, folder, tests, output):
    """Run these tests in that folder, print into the file `output`, and exit as pytest does."""
    with open(output, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ |= environment | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}     # a second less for each run
    os.chdir(folder)
    import pytest
    status = pytest.main(["-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider", "-q", "--tb=line",
                          *tests])
    sys.stdout.flush()
    os._exit(status)                                      # nothing else of the parent's to clean up
