"""Two people speak while the example runs: heard at the next job, once, and counted in the report."""

from pathlib import Path

from trials import document, write_trial

from compliance.consent import ConsentBook
from federation.party import PartyFolder
from federation.trial.simulation import simulate


def test_a_withdrawal_and_an_erasure_change_what_later_jobs_use(tmp_path: Path) -> None:
    terms = document()["agreement"] | {"erasure": {"tolerated_epsilon": 1.0}}
    content = document(agreement=terms)
    del content["evaluate"]
    file = write_trial(tmp_path, content)
    workspace = tmp_path / "workspace"
    for _ in range(2):  # begun again, nothing happens a second time
        report = simulate(file, workspace, with_scene=True)
        changes = {change.after: change for change in report.changes}
        assert set(changes) == {"model", "best"}
        assert {change.party for change in changes.values()} == {"retailer"}
        assert [dict(changes[job].said) for job in ("model", "best")] == [
            {"withdrawn": 1},
            {"erased": 1},
        ]
        assert all(one.eligible_after == one.eligible_before - 1 for one in changes.values())
    page = (workspace / "report.html").read_text()
    assert "What people said meanwhile" in page
    for name in ("brand", "retailer", "courier"):
        folder = PartyFolder(workspace / name)
        assert folder.config.consent == Path("consents.csv")
        assert ConsentBook.load(folder.path / "consents.csv", purposes=terms["purposes"]).log_size
