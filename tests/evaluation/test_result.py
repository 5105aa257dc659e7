import pytest

from pipeline.evaluation import result


@pytest.mark.parametrize("commit", [None, "0123abc"])
def test_an_installed_package_takes_its_commit_from_the_image(commit, tmp_path, monkeypatch):
    monkeypatch.setattr(result, "__file__", str(tmp_path / "lib" / "pipeline" / "evaluation" / "result.py"))
    monkeypatch.delenv("RANKDISTIL_COMMIT", raising=False)
    if commit is not None:
        monkeypatch.setenv("RANKDISTIL_COMMIT", commit)
    assert result.provenance()["commit"] == commit
