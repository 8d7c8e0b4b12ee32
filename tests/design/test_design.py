"""The design itself: who imports whom, what is total, what is fresh."""

import ast
import functools
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from pellucid import errors as client_errors
from pellucid.v1 import inference_pb2
from pellucid_server import errors, wire

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "pellucid_server"
CLIENT = ROOT / "client" / "pellucid"
BIN = Path(sys.executable).parent


@functools.cache
def imports_of(path: Path) -> set[str]:
    """Absolute dotted names of all that a module imports, anywhere in it."""
    top = SERVER.parent if SERVER in path.parents else CLIENT.parent
    package = path.relative_to(top).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def modules(folder: Path) -> Iterator[tuple[str, set[str]]]:
    """Each module's path below its package, and what it imports."""
    for path in sorted(folder.rglob("*.py")):
        if CLIENT / "v1" not in path.parents:
            yield path.relative_to(folder).as_posix(), imports_of(path)


def importers(folder: Path, *prefixes: str) -> set[str]:
    return {
        name
        for name, imported in modules(folder)
        if any(one == p or one.startswith(f"{p}.") for one in imported for p in prefixes)
    }


def test_imports_are_resolved() -> None:
    """What the other tests rest on."""
    found = dict(modules(SERVER))
    assert "pellucid_server.wire" in found["api/rpc.py"]
    assert "pellucid_server.engine.rows" in found["methods/explain/occlusion.py"]
    assert "pellucid_server.photos" in found["inputs.py"]


def loaded_by(statements: str) -> set[str]:
    """The modules that an interpreter of its own has after them."""
    script = f"import sys; {statements}; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(ast.literal_eval(done.stdout))


def test_importing_the_client_loads_neither_torch_nor_pil() -> None:
    loaded = loaded_by("import pellucid; pellucid.Client")
    assert "pellucid.client" in loaded
    assert not loaded & {"torch", "PIL", "typer", "rich", "pellucid_server"}


def test_the_servers_commands_load_no_torch_before_they_run() -> None:
    """OpenMP reads how its threads are to wait while torch is loaded: the commands say it first."""
    loaded = loaded_by("import pellucid_server.cli")
    assert "pellucid_server.config" in loaded
    assert "torch" not in loaded


def test_the_servers_error_table_is_total() -> None:
    defined = {
        one
        for one in vars(errors).values()
        if isinstance(one, type)
        and issubclass(one, errors.PellucidError)
        and one is not errors.PellucidError
    }
    assert set(errors.CODES) == defined
    assert len({one.reason for one in defined}) == len(defined)
    for error, codes in errors.CODES.items():
        assert error.__name__ in (errors.__doc__ or "")
        assert codes.grpc is not grpc.StatusCode.UNKNOWN
        assert 400 <= codes.http < 600


def test_the_clients_error_table_is_total() -> None:
    tables = [one for one in vars(client_errors).values() if isinstance(one, dict)]
    (table,) = [one for one in tables if grpc.StatusCode.INTERNAL in one]
    assert set(table) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert all(issubclass(one, client_errors.PellucidError) for one in table.values())


@pytest.mark.parametrize(
    ("folder", "kinds", "kept_in"),
    [
        ("pellucid/v1", ("python", "pyi", "grpc_python"), CLIENT / "v1"),
        ("inference", ("python", "pyi"), SERVER / "api/inference"),
    ],
)
def test_stubs_are_fresh(
    folder: str, kinds: tuple[str, ...], kept_in: Path, tmp_path: Path
) -> None:
    protos = [str(path) for path in sorted((ROOT / "proto" / folder).glob("*.proto"))]
    out = [f"--{kind}_out={tmp_path}" for kind in kinds]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT / 'proto'}"]
    subprocess.run([*command, *out, *protos], check=True)
    made = {path.name: path.read_text() for path in (tmp_path / folder).iterdir()}
    kept = {
        path.name: path.read_text()
        for path in kept_in.glob("*_pb2*")
        if path.suffix in (".py", ".pyi")
    }
    assert made == kept


def test_the_contract_is_clean() -> None:
    subprocess.run([BIN / "buf", "lint", ROOT / "proto"], check=True)


def test_generated_code_is_of_the_oldest_supported_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {re.split("[=>]", one)[0]: one for one in project["project"]["dependencies"]}
    (tools,) = (
        one for one in project["dependency-groups"]["dev"] if one.startswith("grpcio-tools")
    )
    oldest = tools.partition("==")[2]
    assert needed["grpcio"] == f"grpcio>={oldest}"
    assert f"GRPC_GENERATED_VERSION = '{oldest}'" in (CLIENT / "v1/service_pb2_grpc.py").read_text()
    header = (CLIENT / "v1/service_pb2.py").read_text()
    generated = re.search(r"Protobuf Python Version: (\d+)\.(\d+)", header)
    assert generated is not None
    assert needed["protobuf"] == f"protobuf>={generated[1]}.{generated[2]}"


def test_only_wire_and_api_touch_protobuf() -> None:
    touching = importers(SERVER, "google.protobuf", "google.rpc", "pellucid.v1")
    assert touching
    assert {name for name in touching if not name.startswith(("wire/", "api/inference/"))} <= {
        f"api/{name}.py"
        for name in (
            *("forms", "grpc", "health", "openapi", "rest", "service", "tree"),
            *("video", "websocket"),
        )
    }


def test_only_rest_knows_http() -> None:
    # serve.py runs uvicorn; the application that it runs is the business of api/rest alone.
    assert importers(SERVER, "fastapi", "starlette") == {
        "api/http.py",
        "api/inference/rest.py",
        "api/rest.py",
        "api/websocket.py",
    }
    assert importers(SERVER, "uvicorn") == {"api/connections.py", "serve.py"}


def test_nothing_is_downloaded_but_by_pull() -> None:
    fetching = importers(SERVER, "requests", "urllib.request", "httpx", "aiohttp", "http.client")
    assert fetching == importers(SERVER, "huggingface_hub") == {"models/pull.py"}
    by_pip = "models/styles/wheel.py"
    assert importers(SERVER, "pellucid_server.models.pull") == {"cli.py", by_pip}
    assert importers(SERVER, "pellucid_server.models.styles.wheel") == {"cli.py"}


@pytest.mark.parametrize(
    ("layer", "may_not"),
    [
        ("models", ("engine", "methods", "api", "wire", "serve", "inputs")),
        ("engine", ("methods", "api", "wire", "serve", "inputs", "photos")),
        ("methods", ("api", "wire", "serve", "inputs", "photos", "engine.engine")),
        ("wire", ("api", "serve", "engine.engine")),
        ("api", ("serve",)),
        ("index", ("api", "wire", "serve")),
        ("landscape", ("api", "wire", "serve")),
        ("styles_training", ("api", "wire", "serve", "engine.engine")),
        ("projection", ("api", "wire", "serve", "inputs", "engine", "models")),
    ],
)
def test_layers_look_down_only(layer: str, may_not: tuple[str, ...]) -> None:
    forbidden = importers(SERVER, *(f"pellucid_server.{name}" for name in may_not))
    assert not {name for name in forbidden if name == layer or name.startswith(f"{layer}/")}


def test_the_client_knows_nothing_of_the_server() -> None:
    assert importers(CLIENT, "pellucid_server", "torch") == set()


def test_what_only_a_load_needs_is_imported_there_alone() -> None:
    assert importers(CLIENT, "hdrh") == {"tally.py"}
    assert importers(CLIENT, "pellucid.tally") == {"cli/load.py", "load.py"}
    assert importers(CLIENT, "pellucid.load") == {"cli/load.py", "tally.py"}


def test_nothing_is_unpickled() -> None:
    assert importers(SERVER, "pickle", "cloudpickle", "dill", "joblib", "shelve") == set()
    loads = [
        node
        for path in SERVER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load")
    ]
    assert loads
    for call in loads:
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("weights_only") == "True"


def test_photos_need_no_torch() -> None:
    assert "photos.py" not in importers(SERVER, "torch")


def test_a_method_has_one_name_everywhere() -> None:
    asked = inference_pb2.ExplainRequest.DESCRIPTOR.oneofs_by_name["method"].fields
    told = inference_pb2.ExplainResponse.DESCRIPTOR.oneofs_by_name["method"].fields
    assert {field.name: field.number for field in asked} == {
        field.name: field.number for field in told
    }
    assert {field.name for field in asked} == set(wire.METHODS)
    readme = (ROOT / "README.md").read_text()
    assert all(f"| `{field.name}` |" in readme for field in asked)


def test_a_method_is_named_in_few_places() -> None:
    """Its message, its own file and one line of wire: nothing else knows it."""
    kinds = {kind.__name__: kind for kind in wire.METHODS.values()}
    homes = {name: inspect.getsourcefile(kind) for name, kind in kinds.items()}
    sources = [*SERVER.rglob("*.py"), *(p for p in CLIENT.rglob("*.py") if p.parent.name != "v1")]
    for path in sources:
        tree = list(ast.walk(ast.parse(path.read_text())))
        named = {node.id for node in tree if isinstance(node, ast.Name)}
        named |= {a.name for n in tree if isinstance(n, ast.ImportFrom) for a in n.names}
        spelt = {n.value for n in tree if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        if path == SERVER / "wire/requests.py":
            assert kinds.keys() <= named
            continue
        for name, kind in kinds.items():
            if str(path) != homes[name]:
                assert name not in named, f"{path.name} knows {name}"
                # The default of the client, and the words of the contract's lanes; and what a
                # dossier is by.
                known = {"gradient", "lrp"}
                if path == CLIENT / "dossier.py":
                    known |= {"guided_backprop", "deconvnet"}
                assert kind.name not in spelt - known, f"{path.name} knows {name}"


def test_no_package_at_the_top_of_the_tree() -> None:
    for folder in ("proto", "client", "server", "deploy"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_every_setting_is_in_the_readme() -> None:
    from pellucid_server.config import Settings

    readme = (ROOT / "README.md").read_text()
    for name in Settings.model_fields:
        assert f"`PELLUCID_{name.upper()}`" in readme


def test_the_documents_are_finished() -> None:
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md"):
        assert not re.search(r"^(MEASURED|TODO|TBD|FIXME|XXX)\b", path.read_text(), re.MULTILINE)
