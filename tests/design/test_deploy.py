"""What is deployed: the manifests render, validate, and agree with the server and the image."""

import copy
import functools
import itertools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import trustme
import yaml
from kubernetes_validate.utils import all_versions, major_minor
from pellucid_server.api.health import LIVENESS
from pellucid_server.config import Settings
from pellucid_server.models.styles.wheel import STYLES
from pellucid_server.serve import _CLOSE_S

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent

COMPONENTS = ("checkpoints", "cpu", "models", "tls")
OVERLAYS = ("overlays/cpu", "overlays/gpu")
COMBINATIONS = ["+".join(c) for n in range(5) for c in itertools.combinations(COMPONENTS, n)]
DEPLOYED = (*COMBINATIONS, *OVERLAYS)
"""All that is deployed without KServe: the base with some components, "" with none; overlays."""
SERVER_BYTES = 1 << 30
"""What a server with its models takes besides requests and maps: 0.6 GiB with Lite0 alone."""

OLDEST = "1.30"
"""The first Kubernetes whose preStop sleeps by itself."""
VERSIONS = [
    version
    for version in dict.fromkeys(map(major_minor, all_versions()))
    if int(version.split(".")[1]) >= int(OLDEST.split(".")[1])
]

Document = dict[str, Any]


def kustomize(folder: Path) -> list[Document]:
    done = subprocess.run(
        [BIN / "kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # where what is deprecated is said
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def render(name: str) -> list[Document]:
        if name in (*OVERLAYS, "kserve"):
            return kustomize(DEPLOY / name)
        folder = tmp_path_factory.mktemp("overlay")
        deploy = os.path.relpath(DEPLOY, folder.resolve())
        components = [f"{deploy}/components/{one}" for one in name.split("+") if one]
        overlay = {"resources": [f"{deploy}/base"], "components": components}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return kustomize(folder)

    return render


@pytest.fixture
def documents(render: Any, name: str) -> list[Document]:
    return copy.deepcopy(render(name))


every_deployed = pytest.mark.parametrize("name", DEPLOYED, ids=lambda name: name or "base")


def one(documents: Sequence[Document], kind: str, suffix: str = "") -> Document:
    (found,) = (
        document
        for document in documents
        if document["kind"] == kind and document["metadata"]["name"].endswith(suffix)
    )
    return found


def pod_of(documents: Sequence[Document]) -> Document:
    return one(documents, "Deployment")["spec"]["template"]["spec"]


def container_of(documents: Sequence[Document]) -> Document:
    (container,) = pod_of(documents)["containers"]
    return container


def environment(documents: Sequence[Document]) -> dict[str, str]:
    """The variables that the container gets, as far as they are written down."""
    container, variables = container_of(documents), {}
    for source in container["envFrom"]:
        variables |= one(documents, "ConfigMap", source["configMapRef"]["name"])["data"]
    return variables | literals(container)


def literals(container: Document) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def images_of(part: Any) -> Iterator[str]:
    """Every container's image, anywhere in a document."""
    if isinstance(part, dict):
        for container in part.get("containers", []):
            yield container["image"]
        part = list(part.values())
    for inner in part if isinstance(part, list) else ():
        yield from images_of(inner)


def kserve_pod(documents: Sequence[Document]) -> Document:
    """The pod that KServe makes: the runtime's, with what the predictor says merged in."""
    runtime = one(documents, "ServingRuntime")["spec"]
    predictor = one(documents, "InferenceService")["spec"]["predictor"]
    (container,) = copy.deepcopy(runtime["containers"])
    for kind, amounts in predictor["model"]["resources"].items():
        container["resources"][kind] |= amounts
    components = {"model", "minReplicas", "deploymentStrategy"}
    pod = {key: value for key, value in predictor.items() if key not in components}
    return pod | {"containers": [container], "volumes": runtime["volumes"]}


# Schemas.


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(render: Any, version: str) -> None:
    distinct = {str(document): document for name in DEPLOYED for document in render(name)}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "resnet50"}}
    documents = [*distinct.values(), pod | {"spec": kserve_pod(render("kserve"))}]
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True) == version


def test_several_versions_are_checked_and_mistakes_are_seen(render: Any) -> None:
    assert VERSIONS[0] == OLDEST
    assert len(VERSIONS) >= 5
    document = copy.deepcopy(one(render(""), "Deployment"))
    document["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["grcp"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, OLDEST, strict=True)


def test_names_are_of_one_document_each(render: Any) -> None:
    for name in DEPLOYED:
        named = [(one["kind"], one["metadata"]["name"]) for one in render(name)]
        assert len(set(named)) == len(named)


# Settings.


@pytest.fixture(scope="session")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root below which all volumes are, with what they hold."""
    root = tmp_path_factory.mktemp("root")
    secrets = root / "etc" / "pellucid"
    for folder in (root / "models", secrets / "tls", secrets / "tokens", secrets / "checkpoints"):
        folder.mkdir(parents=True)
    certificate = trustme.CA().issue_cert("pellucid")
    certificate.private_key_pem.write_to_path(secrets / "tls" / "tls.key")
    for part in certificate.cert_chain_pems:
        part.write_to_path(secrets / "tls" / "tls.crt", append=True)
    (secrets / "tokens" / "tokens").write_text("batch 0123456789abcdef0123456789abcdef\n")
    (secrets / "checkpoints" / "key").write_text("0123456789abcdef0123456789abcdef\n")
    return root


@every_deployed
def test_settings_are_the_servers(
    documents: list[Document], name: str, mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(documents)
    fields = {f"PELLUCID_{field.upper()}" for field in Settings.model_fields}
    assert {one for one in variables if one.startswith("PELLUCID_")} <= fields
    mounts = container_of(documents)["volumeMounts"]
    assert {one["name"] for one in mounts} == {one["name"] for one in pod_of(documents)["volumes"]}
    for variable in fields:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        if value.startswith("/"):
            assert any(Path(value).is_relative_to(mount["mountPath"]) for mount in mounts)
            value = f"{mounted}{value}"
        monkeypatch.setenv(variable, value)
    settings = Settings()
    assert settings.device == ("cpu" if "cpu" in name else "cuda")
    assert (settings.model_folders is not None) == ("models" in name)
    assert (settings.tls_certificate is not None) == ("tls" in name)
    assert (settings.token_file is not None) == ("tls" in name)
    assert (settings.checkpoint_key_file is not None) == ("checkpoints" in name)
    memory = container_of(documents)["resources"]["limits"]["memory"]
    taken = settings.queue_bytes * 2 + settings.process_bytes * settings.process_count
    assert taken + SERVER_BYTES <= int(memory.removesuffix("Gi")) << 30


def test_a_changed_setting_rolls_the_pods(render: Any) -> None:
    names = {one(render(name), "ConfigMap")["metadata"]["name"] for name in COMBINATIONS}
    assert len(names) == len(COMBINATIONS)


def test_kserve_sets_what_the_server_knows(
    render: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (container,) = kserve_pod(render("kserve"))["containers"]
    variables = literals(container)
    assert variables["PELLUCID_MODEL_FOLDERS"] == "/mnt/models"  # where KServe puts the storage
    assert {name.removeprefix("PELLUCID_").lower() for name in variables} <= set(
        Settings.model_fields
    )
    for name, value in (variables | {"PELLUCID_MODEL_FOLDERS": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    assert Settings().models == ()


# Ports and probes.


@every_deployed
def test_ports_are_those_that_the_server_listens_on(documents: list[Document], name: str) -> None:
    variables = environment(documents)
    ports = {port["name"]: port["containerPort"] for port in container_of(documents)["ports"]}
    for kind, port in ports.items():
        assert variables[f"PELLUCID_{kind.upper()}_PORT"] == str(port)
        assert Settings.model_fields[f"{kind}_port"].default == port
    services = [one for one in documents if one["kind"] == "Service"]
    assert {port["name"] for one in services for port in one["spec"]["ports"]} == set(ports)
    for service in services:
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
            encrypted = "tls" in name and port["name"] != "metrics"
            assert (port["appProtocol"] == "https") == encrypted
    annotations = one(documents, "Service", "-metrics")["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])


@every_deployed
def test_probes_ask_what_they_mean(documents: list[Document], name: str) -> None:
    container = container_of(documents)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    if "tls" in name:  # the kubelet speaks no TLS in gRPC probes: the port of metrics answers
        asked = {kind: probe["httpGet"] for kind, probe in probes.items()}
        assert all(one["port"] == "metrics" for one in asked.values())
        assert not any("grpc" in probe for probe in probes.values())
        asked = {kind: one["path"] for kind, one in asked.items()}
        wanted = {"liveness": "/health/live"}
        assert asked == dict.fromkeys(("startup", "readiness"), "/health/ready") | wanted
    else:
        assert {kind: probe["grpc"] for kind, probe in probes.items()} == {
            "startup": {"port": ports["grpc"]},
            "readiness": {"port": ports["grpc"]},
            "liveness": {"port": ports["grpc"], "service": LIVENESS},
        }
    start_s = probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"]
    assert start_s >= 600
    assert one(documents, "Deployment")["spec"]["progressDeadlineSeconds"] > start_s


def test_kserve_probes_the_servers_ports(render: Any) -> None:
    (container,) = kserve_pod(render("kserve"))["containers"]
    assert container["name"] == "kserve-container"  # KServe looks for it by this name
    served = [Settings.model_fields[f"{kind}_port"].default for kind in ("http", "grpc")]
    assert [port["containerPort"] for port in container["ports"]] == served
    for kind, path in {"startup": "ready", "readiness": "ready", "liveness": "live"}.items():
        asked = container[f"{kind}Probe"]["httpGet"]
        assert asked == {"path": f"/health/{path}", "port": served[0]}


# The end of a pod.


def check_grace(pod: Document, drain_s: float) -> None:
    (container,) = pod["containers"]
    pre_stop_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = container["readinessProbe"]
    # Callers that look at readiness, and not at the endpoints, see it go in that time, too.
    assert pre_stop_s >= 5
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= drain_s
    # REST's answers leave before gRPC's do.
    assert pod["terminationGracePeriodSeconds"] > pre_stop_s + drain_s + 2 * _CLOSE_S


@every_deployed
def test_the_grace_period_is_longer_than_the_drain(documents: list[Document]) -> None:
    drain_s = float(environment(documents)["PELLUCID_DRAIN_TIMEOUT_S"])
    check_grace(pod_of(documents), drain_s)


def test_kserves_grace_period_is_longer_than_the_drain(render: Any) -> None:
    pod = kserve_pod(render("kserve"))
    check_grace(pod, float(literals(pod["containers"][0])["PELLUCID_DRAIN_TIMEOUT_S"]))


@every_deployed
def test_a_rollout_keeps_its_capacity_and_a_node_can_be_drained(documents: list[Document]) -> None:
    deployment = one(documents, "Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    budget = one(documents, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1


# Who is who.


@every_deployed
def test_selectors_match_the_pods(documents: list[Document]) -> None:
    deployment = one(documents, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [one["spec"]["selector"] for one in documents if one["kind"] == "Service"]
    selectors += [deployment["selector"]["matchLabels"]]
    selectors += [one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    assert len(selectors) == 6
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    assert all(constraint["whenUnsatisfiable"] == "ScheduleAnyway" for constraint in spread)
    account = one(documents, "ServiceAccount")
    assert deployment["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_grpc_is_balanced_by_its_callers(render: Any) -> None:
    assert one(render(""), "Service", "-headless")["spec"]["clusterIP"] == "None"


# What a pod may do and use.


def check_confined(pod: Document) -> None:
    """Kubernetes' restricted standard, and a root file system that is read-only."""
    (container,) = pod["containers"]
    confined = pod["securityContext"] | container["securityContext"]
    assert confined["runAsNonRoot"] is confined["readOnlyRootFilesystem"] is True
    assert confined["allowPrivilegeEscalation"] is confined["privileged"] is False
    assert confined["capabilities"] == {"drop": ["ALL"]}
    assert confined["seccompProfile"] == {"type": "RuntimeDefault"}
    assert confined["runAsUser"] == confined["runAsGroup"] == confined["fsGroup"] > 10_000
    assert pod["automountServiceAccountToken"] is False
    # A service of the namespace would set variables that look like settings.
    assert pod["enableServiceLinks"] is False
    writable = {
        volume["name"]: volume["emptyDir"]["sizeLimit"]
        for volume in pod["volumes"]
        if "emptyDir" in volume
    }
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert list(writable) == ["tmp"]
    assert mounts["tmp"]["mountPath"] == "/tmp"
    assert all(mount["readOnly"] is True for name, mount in mounts.items() if name != "tmp")


@every_deployed
def test_pods_are_confined(documents: list[Document]) -> None:
    check_confined(pod_of(documents))
    assert one(documents, "ServiceAccount")["automountServiceAccountToken"] is False


def test_kserves_pods_are_confined(render: Any) -> None:
    check_confined(kserve_pod(render("kserve")))


@every_deployed
def test_resources_are_bounded(documents: list[Document], name: str) -> None:
    container = container_of(documents)
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory", "ephemeral-storage"} <= resources["limits"].keys()
    gpu = None if "cpu" in name else "1"
    assert resources["limits"].get("nvidia.com/gpu") == gpu
    assert ("nvidia.com/gpu" in str(documents)) == (gpu is not None)
    (threads,) = (one for one in container["env"] if one["name"] == "OMP_NUM_THREADS")
    assert threads["valueFrom"]["resourceFieldRef"] == {"resource": "limits.cpu", "divisor": "1"}
    assert resources["limits"]["cpu"].isdecimal()


def test_secrets_are_mounted_and_not_written_down(render: Any) -> None:
    for name in (*DEPLOYED, "kserve"):
        assert not [one for one in render(name) if one["kind"] == "Secret"]
    volumes = pod_of(render("checkpoints+tls"))["volumes"]
    modes = [volume["secret"]["defaultMode"] for volume in volumes if "secret" in volume]
    assert modes == [0o440, 0o440, 0o440]


# KServe.


def test_the_runtime_says_what_it_serves(render: Any) -> None:
    """As the definitions of KServe 0.20 demand it."""
    runtime = one(render("kserve"), "ServingRuntime")
    service = one(render("kserve"), "InferenceService")
    assert runtime["apiVersion"] == "serving.kserve.io/v1alpha1"
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert runtime["spec"].keys() <= {
        *("annotations", "containers", "labels", "multiModel", "protocolVersions"),
        *("supportedModelFormats", "volumes"),
    }
    assert runtime["spec"]["protocolVersions"] == ["v1", "v2", "grpc-v2"]
    (served,) = runtime["spec"]["supportedModelFormats"]
    assert served["name"]
    assert served["priority"] >= 1
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"] == {key: served[key] for key in ("name", "version")}
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["storageUri"].startswith("pvc://")
    metrics = Settings.model_fields["metrics_port"].default
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == str(metrics)


# The image.


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, a line each."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = filter(None, text.replace("\\\n", " ").splitlines())
    return [(word, " ".join(rest.split())) for word, _, rest in (i.partition(" ") for i in lines)]


def stages() -> dict[str, dict[str, list[str]]]:
    """Arguments by stage and instruction, the last stage's under no name."""
    found: dict[str, dict[str, list[str]]] = {}
    stage: dict[str, list[str]] = {}
    for word, arguments in dockerfile():
        if word == "FROM":
            stage = found.setdefault(arguments.partition(" AS ")[2], {})
        stage.setdefault(word, []).append(arguments)
    return found


def last_stage() -> dict[str, list[str]]:
    return stages()[""]


def test_the_dockerfile_is_clean() -> None:
    subprocess.run(
        [BIN / "hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile"], check=True
    )


def test_every_image_has_the_projects_version(render: Any) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    images = {i for name in (*DEPLOYED, "kserve") for d in render(name) for i in images_of(d)}
    assert images == {f"pellucid:{project['version']}"}
    assert f'image.version="{project["version"]}"' in last_stage()["LABEL"][0]


def test_the_base_image_is_pinned() -> None:
    word, base = dockerfile()[0]
    assert word == "ARG"
    assert re.fullmatch(r"BASE=python:3\.12\.\d+-slim-[a-z]+", base)
    for word, arguments in dockerfile():
        if word == "FROM":
            assert arguments.split()[0] == "${BASE}"
    for path in DEPLOY.rglob("*"):
        assert not path.is_file() or ":latest" not in path.read_text()


def test_the_image_runs_as_the_pods_say(render: Any) -> None:
    stage = last_stage()
    context = pod_of(render(""))["securityContext"]
    assert stage["USER"] == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    exposed = [int(port) for port in stage["EXPOSE"][0].split()]
    ports = [port["containerPort"] for port in container_of(render(""))["ports"]]
    assert exposed == ports
    assert stage["ENTRYPOINT"] == ['["pellucid", "serve"]']
    assert stage["STOPSIGNAL"] == ["SIGTERM"]
    assert "RUN" not in stage
    assert "ARG" not in stage
    variables = dict(setting.split("=", 1) for setting in stage["ENV"][0].split())
    assert variables["HOME"] == stage["WORKDIR"][0] == "/tmp"
    assert "NVIDIA_VISIBLE_DEVICES" not in variables
    assert Settings.model_fields["host"].default == "127.0.0.1"
    assert variables["PELLUCID_HOST"] == "0.0.0.0"


def test_the_image_has_the_styles() -> None:
    [run] = stages()["styles"]["RUN"]
    folder = f"{run.split('pellucid models pull styles --to ')[1]}/{STYLES}"
    assert f"--from=styles {folder} {folder}" in last_stage()["COPY"]
    assert f"PELLUCID_STYLES={folder}" in last_stage()["ENV"][0].split()
    assert "styles" in Settings.model_fields


def test_the_image_is_built_of_what_its_context_has() -> None:
    kept = {
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for word, arguments in dockerfile()
        if word == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert kept == copied
    assert all((ROOT / one).exists() for one in kept)
