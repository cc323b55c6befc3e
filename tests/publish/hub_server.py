"""A stand-in for the Hub: repositories in memory behind HTTP on this machine, with tokens and failures on demand."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from huggingface_hub import HfApi, constants, hf_api
from huggingface_hub.utils import _http, close_session

OWNER = "me"
WRITE_TOKEN = "hf_" + "w" * 34
READ_TOKEN = "hf_" + "r" * 34
UNKNOWN_TOKEN = "hf_" + "x" * 34
TOKENS = {WRITE_TOKEN: "write", READ_TOKEN: "read"}

LARGE = (".safetensors", ".png", ".onnx", ".bin", ".model")
"""What a new repository keeps outside git, as its `.gitattributes` says on the Hub."""

DROP = 0
"""In the place of a status: the connection breaks without an answer."""


@dataclass
class Commit:
    """A commit: its message, all files after it, and the paths that it changed."""

    oid: str
    message: str
    files: dict[str, bytes]
    changed: set[str]


@dataclass
class Repository:
    """A repository with one branch."""

    private: bool
    commits: list[Commit] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        """What a visitor sees, by path."""
        return self.commits[-1].files

    def commit(self, message: str, changes: dict[str, bytes | None]) -> Commit:
        """Adds a commit; `None` deletes."""
        files = {**(self.files if self.commits else {}), **changes}
        files = {path: content for path, content in files.items() if content is not None}
        oid = hashlib.sha1(f"{len(self.commits)} {message} {sorted(files)}".encode()).hexdigest()
        self.commits.append(Commit(oid, message, files, set(changes)))
        return self.commits[-1]


@dataclass
class Hub:
    """What the stand-in knows and has seen.

    Args:
        endpoint (`str`): Its address.
        repositories (`dict`): By `owner/name`.
        objects (`dict`): Large files that were sent, by their sha256.
        requests (`list`): `METHOD path` of every request, in order.
        fault (`Callable`, *optional*): Is asked before every answer, with `METHOD path`: a status to answer with,
            `DROP`, or nothing.
    """

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fault: Callable[[str], int | None] | None = None

    def create(self, repo_id: str, private: bool = False, files: dict[str, bytes] | None = None) -> Repository:
        """Creates a repository as the Hub does, with its first commit, and another one for files."""
        repository = self.repositories[repo_id] = Repository(private)
        lines = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)
        repository.commit("initial commit", {".gitattributes": lines.encode()})
        if files:
            repository.commit("files", dict(files))
        return repository

    def fail(self, pattern: str, status: int = DROP, after: int = 0, times: int | None = None) -> None:
        """From the request after the `after`-th that matches, answers with `status`; `times` times, or always."""
        seen, lock = [0], threading.Lock()

        def fault(request: str) -> int | None:
            if not re.search(pattern, request):
                return None
            with lock:
                seen[0] += 1
                late = seen[0] > after and (times is None or seen[0] <= after + times)
            return status if late else None

        self.fault = fault

    def sent(self, pattern: str) -> list[str]:
        """Returns the requests that match, in order."""
        return [request for request in self.requests if re.search(pattern, request)]


class Handler(BaseHTTPRequestHandler):
    """Answers as the Hub does, as far as creating, listing, uploading and downloading go."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        self._respond()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _respond(self) -> None:
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        body, request = self._body(), f"{self.command} {path}"
        self.hub.requests.append(request)
        status = self.hub.fault(request) if self.hub.fault else None
        if status == DROP and status is not None:
            self.close_connection = True
            return
        if status is not None:
            self._json(status, {"error": "planted failure"})
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.may = TOKENS.get(token)
        if token and self.may is None:
            self._json(401, {"error": "Invalid username or password."}, "Invalid username or password.")
            return
        for method, pattern, answer in ROUTES:
            match = re.fullmatch(pattern, request)
            if match and self.command in method:
                answer(self, body, *match.groups())
                return
        self._json(404, {"error": f"The stand-in does not know {request}"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, status: int, content: object, message: str = "", code: str = "") -> None:
        headers = {"Content-Type": "application/json"}
        if message:
            headers["X-Error-Message"] = message
        if code:
            headers["X-Error-Code"] = code
        self._bytes(status, json.dumps(content).encode(), headers)

    def _bytes(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refused(self, write: bool = True) -> bool:
        """Answers 401 or 403 where the token does not do, and says so."""
        if self.may is None:
            self._json(401, {"error": "Invalid username or password."}, "Invalid username or password.")
        elif write and self.may != "write":
            self._json(403, {"error": "no write access"}, "your token has read access only")
        else:
            return False
        return True

    def _repository(self, repo_id: str) -> Repository | None:
        """Returns a repository, or answers that there is none."""
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (repository.private and self.may is None):
            status = 404 if self.may else 401
            self._json(status, {"error": "Repository not found"}, "Repository not found", "RepoNotFound")
            return None
        return repository

    def _commit(self, repository: Repository, revision: str) -> Commit | None:
        """Returns a commit, or answers that there is none."""
        if revision == "main":
            return repository.commits[-1]
        found = next((commit for commit in repository.commits if commit.oid == revision), None)
        if found is None:
            self._json(404, {"error": "Revision not found"}, "Revision not found", "RevisionNotFound")
        return found

    # What is asked

    def whoami(self, body: bytes) -> None:
        if not self._refused(write=False):
            self._json(200, {"type": "user", "name": OWNER, "orgs": [], "auth": {}})

    def create(self, body: bytes) -> None:
        if self._refused():
            return
        wanted = json.loads(body)
        owner = wanted.get("organization") or OWNER
        repo_id = f"{owner}/{wanted['name']}"
        answer = {"url": f"{self.hub.endpoint}/{repo_id}", "id": repo_id}
        if owner != OWNER:
            self._json(403, {"error": "forbidden"}, f'you cannot create a model under "{owner}"')
        elif repo_id in self.hub.repositories:
            self._json(409, answer | {"error": "You already created this model repo"})
        else:
            self.hub.create(repo_id, private=wanted.get("visibility") == "private")
            self._json(200, answer)

    def info(self, body: bytes, repo_id: str, revision: str | None = None) -> None:
        repository = self._repository(repo_id)
        commit = self._commit(repository, revision or "main") if repository else None
        if commit:
            siblings = [{"rfilename": path} for path in sorted(commit.files)]
            self._json(
                200,
                {"id": repo_id, "sha": commit.oid, "private": repository.private, "siblings": siblings, "tags": []},
            )

    def tree(self, body: bytes, repo_id: str, revision: str, folder: str | None = None) -> None:
        repository = self._repository(repo_id)
        commit = self._commit(repository, revision) if repository else None
        if not commit:
            return
        folder = PurePosixPath(folder or ".")
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        entries: dict[str, dict] = {}
        for path, content in commit.files.items():
            parents = PurePosixPath(path).parents
            if folder not in parents:
                continue
            if PurePosixPath(path).parent == folder or recursive:
                entries[path] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
                if path.endswith(LARGE):
                    entries[path]["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
            for parent in parents:
                if folder in parent.parents and (recursive or parent.parent == folder):
                    entries[str(parent)] = {"type": "directory", "path": str(parent), "oid": "0" * 40, "size": 0}
        if str(folder) != "." and not entries:
            self._json(404, {"error": "no such folder"}, "no such folder", "EntryNotFound")
        else:
            self._json(200, list(entries.values()))

    def validate_yaml(self, body: bytes) -> None:
        block = re.match(r"---\n(.*?)\n---", json.loads(body)["content"], re.DOTALL)
        try:
            valid = block is None or isinstance(yaml.safe_load(block[1]), dict)
        except yaml.YAMLError:
            valid = False
        errors = [] if valid else [{"message": "the metadata are no mapping"}]
        self._json(200 if valid else 400, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, repo_id: str, revision: str) -> None:
        repository = None if self._refused() else self._repository(repo_id)
        commit = self._commit(repository, revision) if repository else None
        if not commit:
            return
        answers = []
        for wanted in json.loads(body)["files"]:
            path, present = wanted["path"], commit.files.get(wanted["path"])
            answer = {"path": path, "uploadMode": "lfs" if path.endswith(LARGE) else "regular", "shouldIgnore": False}
            if present is not None:
                answer["oid"] = sha256(present) if path.endswith(LARGE) else git_hash(present)
            answers.append(answer)
        self._json(200, {"files": answers})

    def lfs_batch(self, body: bytes, repo_id: str) -> None:
        if self._refused() or not self._repository(repo_id):
            return
        objects = json.loads(body)["objects"]
        for one in objects:
            if one["oid"] not in self.hub.objects:
                one["actions"] = {"upload": {"href": f"{self.hub.endpoint}/storage/{one['oid']}"}}
        self._json(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        if sha256(body) != oid:
            self._json(400, {"error": "the content has another hash"})
        else:
            self.hub.objects[oid] = body
            self._json(200, {})

    def commit(self, body: bytes, repo_id: str, revision: str) -> None:
        repository = None if self._refused() else self._repository(repo_id)
        if not repository or not self._commit(repository, revision):
            return
        message, changes = "", {}
        for line in body.splitlines():
            entry = json.loads(line)
            kind, value = entry["key"], entry["value"]
            if kind == "header":
                message = value["summary"]
            elif kind == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile" and value["oid"] in self.hub.objects:
                changes[value["path"]] = self.hub.objects[value["oid"]]
            elif kind == "deletedFile":
                changes[value["path"]] = None
            else:
                self._json(400, {"error": f"cannot commit {kind} {value.get('path')}: its content was not sent"})
                return
        oid = repository.commit(message, changes).oid
        self._json(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{oid}"}
        )

    def resolve(self, body: bytes, repo_id: str, revision: str, path: str) -> None:
        repository = self._repository(repo_id)
        commit = self._commit(repository, revision) if repository else None
        if not commit:
            return
        headers, content = {"X-Repo-Commit": commit.oid}, commit.files.get(path)
        if content is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self._bytes(404, b"Entry not found", headers)
            return
        etag = sha256(content) if path.endswith(LARGE) else git_hash(content)
        self._bytes(200, content, headers | {"ETag": f'"{etag}"', "Content-Type": "application/octet-stream"})


REPO = r"([\w.-]+(?:/[\w.-]+)?)"
ROUTES = (
    ("GET", r"\w+ /api/whoami-v2", Handler.whoami),
    ("POST", r"\w+ /api/repos/create", Handler.create),
    ("POST", r"\w+ /api/validate-yaml", Handler.validate_yaml),
    ("POST", rf"\w+ /api/models/{REPO}/preupload/([^/]+)", Handler.preupload),
    ("POST", rf"\w+ /api/models/{REPO}/commit/([^/]+)", Handler.commit),
    ("GET", rf"\w+ /api/models/{REPO}/tree/([^/]+)(?:/(.+))?", Handler.tree),
    ("GET", rf"\w+ /api/models/{REPO}/revision/([^/]+)", Handler.info),
    ("GET", rf"\w+ /api/models/{REPO}", Handler.info),
    ("POST", rf"\w+ /{REPO}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"\w+ /storage/(\w+)", Handler.store),
    ("GET HEAD", rf"\w+ /{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Runs a stand-in until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        close_session()


def connect(monkeypatch, endpoint: str, home: Path, token: str | None = WRITE_TOKEN) -> None:
    """Makes this process take an address for the Hub, with a token and a cache of its own, and without Xet."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    # The functions that transformers imports belong to an object that was made at import.
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    # A request that fails is tried again after 1, 2, 4, 8 and 8 seconds.
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    assert HfApi().endpoint == endpoint


def environment(hub: Hub, home: Path, token: str | None = WRITE_TOKEN) -> dict[str, str]:
    """Returns the environment variables that do the same in another process."""
    variables = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(home),
    }
    return variables | ({"HF_TOKEN": token} if token else {})
