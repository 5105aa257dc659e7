"""Which code made a result."""

import pytest

from pipeline import provenance
from pipeline.evaluation import result


@pytest.mark.parametrize("commit", [None, "0123abc"])
def test_an_installed_package_takes_its_commit_from_the_image(commit, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "lib" / "pipeline")
    monkeypatch.delenv("RANKDISTIL_COMMIT", raising=False)
    if commit is not None:
        monkeypatch.setenv("RANKDISTIL_COMMIT", commit)
    provenance.commit.cache_clear()
    try:
        assert result.provenance()["commit"] == commit
    finally:
        provenance.commit.cache_clear()
