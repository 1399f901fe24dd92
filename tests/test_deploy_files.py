"""What a deployment is made of: image, compose file, chart and units, held against their formats."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from deployment import children
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from federation.unsealing import SOURCES

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "comity"
HELM = Path(sys.executable).with_name("helm")
HELM = HELM if HELM.exists() else Path(shutil.which("helm") or "helm")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
KUBERNETES = "1.33"
COORDINATOR = {"role": "coordinator", "coordinator": {"address": "coordinator.example:9091"}}
DIGEST = "sha256:" + 64 * "a"

with_helm = pytest.mark.skipif(shutil.which(str(HELM)) is None, reason="there is no helm")
with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze"
)


def helm(values: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    return template(json.dumps(values))


@cache
def template(values: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [HELM, "template", "release", CHART, "--values", "-"],
        input=values,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the chart's objects by kind, each as Kubernetes takes it."""
    found = helm(values)
    assert found.returncode == 0, found.stderr
    objects = [one for one in yaml.safe_load_all(found.stdout) if one]
    for one in objects:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    return {one["kind"]: one for one in objects}


def leaves(values: dict[str, Any], under: str = "") -> Iterator[str]:
    """Yield the paths of values; a group that templates take as a whole counts as one."""
    for key, one in values.items():
        if isinstance(one, dict) and one and key not in {"resources", "sidecarResources"}:
            yield from leaves(one, f"{under}{key}.")
        else:
            yield f"{under}{key}"


@with_helm
class TestChart:
    @pytest.mark.parametrize(
        ("values", "kinds"),
        [
            ({}, {"Deployment", "NetworkPolicy", "PersistentVolumeClaim"}),
            (
                {"node": {"serveLog": True}, "postgresql": {"existingSecret": "ledger"}},
                {"Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Service"},
            ),
            (COORDINATOR, {"Deployment", "NetworkPolicy", "PersistentVolumeClaim", "Service"}),
            (
                COORDINATOR
                | {
                    "networkPolicy": {"enabled": False},
                    "persistence": {"existingClaim": "ours"},
                    "extraEnv": [{"name": "HTTPS_PROXY", "value": "proxy.example:3128"}],
                    "extraEnvFrom": [{"secretRef": {"name": "objects"}}],
                    "image": {"digest": DIGEST},
                    "imagePullSecrets": [{"name": "pull"}],
                    "tolerations": [{"operator": "Exists"}],
                },
                {"Deployment", "Service"},
            ),
        ],
    )
    def test_kubernetes_takes_it(self, values: dict[str, Any], kinds: set[str]) -> None:
        assert rendered(values).keys() == kinds

    @pytest.mark.parametrize("values", [{"node": {"serveLog": True}}, COORDINATOR])
    def test_nothing_runs_as_root_or_can_become_it(self, values: dict[str, Any]) -> None:
        pod = rendered(values)["Deployment"]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        for container in pod["initContainers"] + pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"]
            assert not rights["allowPrivilegeEscalation"]
            assert rights["capabilities"] == {"drop": ["ALL"]}

    def test_a_digest_counts_in_place_of_a_tag(self) -> None:
        deployment = rendered({"image": {"digest": DIGEST}})["Deployment"]
        (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"comity@{DIGEST}"

    def test_the_ledgers_password_comes_from_a_secret(self) -> None:
        deployment = rendered({"postgresql": {"existingSecret": "ledger"}})["Deployment"]
        (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "ledger"}}]

    def test_a_folder_without_a_claim_comes_back_from_its_copy(self) -> None:
        url = "postgresql://retailer@db.example/comity"
        database = {"url": url, "party": "retailer"}
        found = rendered({"database": database, "persistence": {"enabled": False}})
        assert "PersistentVolumeClaim" not in found
        pod = found["Deployment"]["spec"]["template"]["spec"]
        assert pod["initContainers"][0]["args"] == [
            *("node", "restore", "--if-there", "--party", "/srv/comity/party", "--database", url),
            *("--name", "retailer"),
        ]
        assert "emptyDir" in next(one for one in pod["volumes"] if one["name"] == "data")
        assert helm({"database": {"url": url}}).returncode != 0

    def test_an_object_stores_place_and_keys_are_in_every_container(self) -> None:
        store = {"endpoint": "https://objects.example", "region": "eu-1", "existingSecret": "keys"}
        pod = rendered({"objectStorage": store})["Deployment"]["spec"]["template"]["spec"]
        for container in pod["initContainers"] + pod["containers"]:
            told = {one["name"]: one["value"] for one in container["env"]}
            assert told["AWS_ENDPOINT_URL_S3"] == "https://objects.example"
            assert told["AWS_REGION"] == told["AWS_DEFAULT_REGION"] == "eu-1"
            assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
        assert helm({"objectStorage": {"endpoint": "objects.example"}}).returncode != 0

    def test_an_authority_that_is_given_is_seen_by_the_container_that_takes_it(self) -> None:
        tls = {"address": "c.example", "tls": {"existingSecret": "authority"}}
        made = rendered({"role": "coordinator", "coordinator": tls})
        pod = made["Deployment"]["spec"]["template"]["spec"]
        (volume,) = [one for one in pod["volumes"] if one["name"] == "authority"]
        assert volume["secret"]["secretName"] == "authority"
        (init,) = pod["initContainers"]
        (mount,) = [one for one in init["volumeMounts"] if one["name"] == "authority"]
        assert init["args"][-1] == f"--authority={mount['mountPath']}"
        for container in pod["containers"]:
            assert "authority" not in {one["name"] for one in container["volumeMounts"]}

    @pytest.mark.parametrize("values", [{"node": {"serveLog": True}}, COORDINATOR])
    def test_every_container_finds_the_unsealing_key_as_a_file(
        self, values: dict[str, Any]
    ) -> None:
        made = rendered(values | {"unsealing": {"existingSecret": "sealed"}})
        pod = made["Deployment"]["spec"]["template"]["spec"]
        (volume,) = [one for one in pod["volumes"] if one["name"] == "unsealing"]
        assert volume["secret"]["secretName"] == "sealed"
        assert volume["secret"]["defaultMode"] == 0o440
        for container in pod["initContainers"] + pod["containers"]:
            (variable,) = container["env"]
            assert variable["name"] in SOURCES
            (mount,) = [one for one in container["volumeMounts"] if one["name"] == "unsealing"]
            (item,) = volume["secret"]["items"]
            assert variable["value"] == f"{mount['mountPath']}/{item['path']}"
            assert mount["readOnly"]

    @pytest.mark.parametrize(
        ("values", "folder"),
        [
            ({"node": {"serveLog": True, "observe": {"port": 9464}}}, "/srv/comity/party"),
            ({}, "/srv/comity/party"),
            (COORDINATOR, "/srv/comity/coordinator"),
        ],
    )
    def test_keys_lie_in_a_folder_within_the_volume(
        self, values: dict[str, Any], folder: str
    ) -> None:
        pod = rendered(values)["Deployment"]["spec"]["template"]["spec"]
        for container in pod["initContainers"] + pod["containers"]:
            said = " ".join(container.get("command", []) + container.get("args", []))
            assert set(re.findall(r"/srv/comity(?:/\w+)?", said)) == {folder}

    @pytest.mark.parametrize(("address", "port"), [("c.example", 9091), ("[2001:db8::1]:443", 443)])
    def test_a_coordinator_listens_where_it_is_probed_whatever_parties_call(
        self, address: str, port: int
    ) -> None:
        made = rendered({"role": "coordinator", "coordinator": {"address": address}})
        pod = made["Deployment"]["spec"]["template"]["spec"]
        (init,) = pod["initContainers"]
        assert init["args"][-2:] == [f"--address={address}", "--listen=0.0.0.0:9091"]
        (service,) = made["Service"]["spec"]["ports"]
        assert (service["port"], service["targetPort"]) == (port, "parties")

    @pytest.mark.parametrize("values", [{"node": {"serveLog": True}}, COORDINATOR])
    def test_the_one_pod_is_called_also_where_it_is_not_ready(self, values: dict[str, Any]) -> None:
        assert rendered(values)["Service"]["spec"]["publishNotReadyAddresses"]

    def test_strangers_calls_cannot_have_a_coordinator_killed(self) -> None:
        pod = rendered(COORDINATOR)["Deployment"]["spec"]["template"]["spec"]
        (container, _) = pod["containers"]
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["tcpSocket"] == {"port": "parties"}

    @pytest.mark.parametrize(
        ("values", "folder"), [({}, "party"), (COORDINATOR, "coordinator/party")]
    )
    def test_what_is_due_is_deleted_on_either_side(
        self, values: dict[str, Any], folder: str
    ) -> None:
        made = rendered(values | {"retention": {"everySeconds": 3600}})
        (*_, container) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
        (*_, said) = container["command"]
        assert f"do comity retention run /srv/comity/{folder} & " in said
        assert "sleep 3600 & " in said

    @pytest.mark.parametrize("values", [{"node": {"serveLog": True}}, COORDINATOR])
    def test_a_quota_of_the_namespace_takes_every_container(self, values: dict[str, Any]) -> None:
        pod = rendered(values)["Deployment"]["spec"]["template"]["spec"]
        for container in pod["initContainers"] + pod["containers"]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]

    @pytest.mark.parametrize(
        "place", [("initContainers", 0), ("containers", -1), ("containers", -2)]
    )
    def test_what_waits_in_a_container_ends_when_it_is_told_to(
        self, place: tuple[str, int], tmp_path: Path
    ) -> None:
        """A container's first process gets no signal that it does not ask for."""
        made = rendered({"node": {"serveLog": True}})["Deployment"]
        pod = made["spec"]["template"]["spec"]
        command = pod[place[0]][place[1]]["command"]
        (tmp_path / "comity").write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / "comity").chmod(0o755)
        apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
        if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
            pytest.skip("processes cannot be numbered anew here")
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        waiting = subprocess.Popen(
            [*apart, *command], env=os.environ | {"PATH": path}, stderr=subprocess.PIPE, text=True
        )
        try:
            while len(shell := children(waiting.pid)) != 1 or not children(shell[0]):
                assert waiting.poll() is None
                time.sleep(0.01)
            os.kill(shell[0], signal.SIGTERM)
            _, told = waiting.communicate(timeout=20)
            assert waiting.returncode == 143
            assert ("as it was told to" in told) is ("retention run" in command[-1])
        finally:
            waiting.kill()

    def test_a_pod_is_what_its_company_says_of_it(self) -> None:
        said = {"podLabels": {"sidecar": "no"}, "podAnnotations": {"why": "TLS ends here"}}
        template = rendered(said | {"serviceAccountName": "objects"})["Deployment"]["spec"][
            "template"
        ]
        assert template["metadata"]["labels"]["sidecar"] == "no"
        assert template["metadata"]["annotations"] == {"why": "TLS ends here"}
        assert template["spec"]["serviceAccountName"] == "objects"

    def test_a_log_that_has_not_begun_gets_nobody_killed(self) -> None:
        pod = rendered({"node": {"serveLog": True}})["Deployment"]["spec"]["template"]["spec"]
        (log,) = [one for one in pod["containers"] if one["name"] == "log"]
        assert "livenessProbe" not in log
        assert log["command"][-1].index("party/agreement.json") < log["command"][-1].index("exec")

    def test_a_node_asks_for_no_authority_of_a_coordinators(self) -> None:
        values = {"coordinator": {"tls": {"existingSecret": "authority"}}}
        pod = rendered(values)["Deployment"]["spec"]["template"]["spec"]
        assert "authority" not in {one["name"] for one in pod["volumes"]}

    def test_every_value_is_used(self) -> None:
        chart = "".join(one.read_text("utf-8") for one in (CHART / "templates").iterdir())
        for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))):
            assert f".Values.{path}" in chart, path

    def test_nobody_can_call_a_node(self) -> None:
        policy = rendered({})["NetworkPolicy"]["spec"]
        assert policy["policyTypes"] == ["Ingress"]
        assert policy["ingress"] == []

    def test_a_node_that_is_observed_is_probed_and_read_by_whom_it_names(self) -> None:
        watcher = {"podSelector": {"matchLabels": {"app": "prometheus"}}}
        for who in ([], [watcher]):
            made = rendered({"node": {"observe": {"port": 9464, "from": who}}})
            (node, *_) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
            assert node["args"][-2:] == ["--observe", "0.0.0.0:9464"]
            assert node["livenessProbe"]["httpGet"] == {"path": "/health", "port": "observe"}
            assert node["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "observe"}
            found = made["NetworkPolicy"]["spec"]["ingress"]
            assert found == [{"ports": [{"port": "observe"}], "from": [one]} for one in who]
        (quiet, *_) = rendered({})["Deployment"]["spec"]["template"]["spec"]["containers"]
        assert not {"ports", "livenessProbe", "readinessProbe"} & quiet.keys()

    @pytest.mark.parametrize(
        ("values", "named"),
        [
            ({"node": {"observe": {"port": 70000}}}, "port"),
            ({"role": "operator"}, "role"),
            ({"role": "coordinator"}, "coordinator.address"),
            ({"image": {"digest": "latest"}}, "image.digest"),
            ({"persistance": {}}, "persistance"),
            ({"persistence": {"size": "much"}}, "persistence.size"),
        ],
    )
    def test_a_mistaken_value_is_named(self, values: dict[str, Any], named: str) -> None:
        found = helm(values)
        assert found.returncode == 1
        assert named in found.stderr


class TestComposeFile:
    def test_it_is_one(self) -> None:
        schema = json.loads((ROOT / "tests" / "vectors" / "compose-spec.json").read_text("utf-8"))
        content = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
        validator = jsonschema.Draft7Validator(schema)
        validator.validate(content)
        broken = content | {"services": {"node": {"imagine": "comity"}}}
        with pytest.raises(jsonschema.ValidationError, match="imagine"):
            validator.validate(broken)
        for service in content["services"].values():
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]
            said = str([service.get(key) for key in ("command", "entrypoint", "healthcheck")])
            (side,) = service["profiles"]
            within = "coordinator" if side == "coordinator" else "party"
            assert set(re.findall(r"/srv/comity(?:/\w+)?", said)) <= {f"/srv/comity/{within}"}

    def test_whatever_opens_the_folder_gets_what_the_environment_gives(self) -> None:
        content = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
        for service in content["services"].values():
            assert {*SOURCES} & {*service["environment"]} == {"COMITY_UNSEALING_KEY_FILE"}
            assert {"PGPASSWORD", "AWS_SECRET_ACCESS_KEY"} <= {*service["environment"]}
            (*_, key) = service["volumes"]
            assert key["source"].startswith("${COMITY_UNSEALING_KEY_FILE:-")
            assert key["target"].startswith("${COMITY_UNSEALING_KEY_FILE:-")


class TestUnits:
    def test_retention_has_the_passwords_that_a_node_has(self) -> None:
        """It deletes segments from databases and object stores."""
        for name in ("node", "retention"):
            text = (DEPLOY / "systemd" / f"comity-{name}@.service").read_text(encoding="utf-8")
            assert "\nEnvironmentFile=-/etc/comity/%i.env\n" in text

    @with_systemd
    def test_systemd_takes_them_and_finds_them_confined(self, tmp_path: Path) -> None:
        names = []
        for unit in (DEPLOY / "systemd").iterdir():
            text = unit.read_text(encoding="utf-8").replace(
                "/opt/comity/bin/comity", sys.executable
            )
            names.append(unit.name.replace("@", "@brand"))
            (tmp_path / names[-1]).write_text(text, encoding="utf-8")
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in names)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        ours = [line for line in verified.stderr.splitlines() if "comity" in line]
        assert (verified.returncode, ours) == (0, [])
        for name in names:
            if name.endswith(".service"):
                subprocess.run(
                    ["systemd-analyze", "security", "--offline=true", "--threshold=20", name],
                    cwd=tmp_path,
                    capture_output=True,
                    check=True,
                    timeout=60,
                )


class TestImage:
    TEXT = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")

    def test_it_holds_all_packages_and_runs_as_nobody(self) -> None:
        copied = set(re.findall(r"^COPY (\w+) \1$", self.TEXT, re.MULTILINE))
        wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
        assert copied == {*wheel["packages"], *wheel["force-include"]}
        assert re.findall(r"^USER (\S+)$", self.TEXT, re.MULTILINE) == ["10001:10001"]
        ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        taken = {line.removeprefix("!") for line in ignored if line.startswith("!")}
        assert copied <= taken

    def test_every_version_is_pinned_to_one_that_the_project_allows(self) -> None:
        lines = (DEPLOY / "requirements.txt").read_text(encoding="utf-8").splitlines()
        pinned = dict(line.split("==") for line in lines)
        extras = PROJECT["project"]["optional-dependencies"]
        asked = [*PROJECT["project"]["dependencies"], *extras["node"], *extras["coordinator"]]
        for requirement in map(Requirement, asked):
            if requirement.name != "comity":
                version = pinned[canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(version, prereleases=True), requirement
