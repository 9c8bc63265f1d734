"""A local server that answers the part of the Hub's API that an export calls, and keeps what it is given.

Only the calls that `huggingface_hub` really makes for a dataset: create, info, tree (paged), validate-yaml, preupload,
LFS batch, PUT, verify, commit. It is as strict as the Hub about tokens, hashes, parents and missing large files.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "hf_writer"
_PAGE = 3  # so that a listing of a handful of files has several pages


class RefusalError(Exception):
    """An HTTP error answer."""

    def __init__(self, status: int, message: str, answer: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.answer = answer or {}


class Repo:
    """One dataset repository: path to (is_lfs, content); `commits` are ids, oldest first."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.files: dict[str, tuple[bool, bytes]] = {".gitattributes": (False, b"*.tar filter=lfs\n")}
        self.commits = [hashlib.sha1(b"first").hexdigest()]

    def entry(self, path: str) -> dict[str, Any]:
        is_lfs, content = self.files[path]
        sha256 = hashlib.sha256(content).hexdigest()
        if not is_lfs:
            return {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        lfs = {"oid": sha256, "size": len(content), "pointerSize": 134}
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"
        return {"type": "file", "path": path, "size": len(content), "oid": git_hash(pointer.encode()), "lfs": lfs}


def git_hash(content: bytes) -> str:
    """git's id of a blob."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


class FakeHub:
    """A context manager; `endpoint` is its base URL.

    Attributes:
        repos: repositories by id.
        objects: large files by sha256.
        log: (method, path) of every request.
        refuse: called with (method, path) before every answer; a status makes the server refuse with it.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.refuse: Callable[[str, str], int | None] = lambda method, path: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, pattern: str) -> int:
        """Requests so far whose path matches."""
        return sum(m == method and re.search(pattern, p) is not None for m, p in self.log)

    def answer(self, method: str, target: str, token: str, body: bytes) -> tuple[Any, dict[str, str]]:
        """JSON and headers of the answer.

        Raises:
            RefusalError: any other status than 200.
        """
        url = urlsplit(target)
        path = url.path
        self.log.append((method, path))
        if (status := self.refuse(method, path)) is not None:
            raise RefusalError(status, "refused by the test")
        if method == "PUT" and (found := re.fullmatch(r"/lfs/(\w{64})", path)):
            return self._put(found[1], body)
        if token != f"Bearer {TOKEN}":
            raise RefusalError(401, "Invalid username or password.")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}, {}
        if path == "/lfs/verify":
            asked = json.loads(body)
            if len(self.objects.get(asked["oid"], b"")) != asked["size"]:
                raise RefusalError(404, "no such object")
            return {}, {}
        if found := re.fullmatch(r"/datasets/([\w-]+/[\w-]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if found := re.fullmatch(r"/api/datasets/([\w-]+/[\w-]+)(?:/(tree|preupload|commit|revision)/main)?", path):
            repo = self.repos.get(found[1])
            if repo is None:
                raise RefusalError(404, "Repository not found")
            if found[2] == "tree":
                return self._tree(repo, url.path, parse_qs(url.query))
            if found[2] == "preupload":
                return self._preupload(repo, json.loads(body))
            if found[2] == "commit":
                return self._commit(found[1], repo, body)
            return {"id": found[1], "sha": repo.commits[-1], "private": repo.private}, {}
        raise RefusalError(404, f"the fake Hub does not know {method} {path}")

    def _create(self, asked: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        repo_id = f"{asked['organization']}/{asked['name']}"
        if asked["type"] != "dataset":
            raise RefusalError(400, "datasets only")
        url = {"url": f"{self.endpoint}/datasets/{repo_id}"}
        if repo_id in self.repos:
            raise RefusalError(409, "You already created this dataset repo", url)
        self.repos[repo_id] = Repo(asked.get("visibility") == "private")
        return url, {}

    def _tree(self, repo: Repo, path: str, query: dict[str, list[str]]) -> tuple[Any, dict[str, str]]:
        start = int(query.get("cursor", ["0"])[0])
        paths = sorted(repo.files)
        more = {}
        if start + _PAGE < len(paths):
            more["Link"] = f'<{self.endpoint}{path}?recursive=True&cursor={start + _PAGE}>; rel="next"'
        return [repo.entry(p) for p in paths[start : start + _PAGE]], more

    def _preupload(self, repo: Repo, asked: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        files = []
        for file in asked["files"]:
            large = file["path"].endswith((".tar", ".parquet"))
            answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if file["path"] in repo.files:
                entry = repo.entry(file["path"])
                answer["oid"] = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            files.append(answer)
        return {"files": files}, {}

    def _batch(self, asked: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        objects = []
        for wanted in asked["objects"]:
            if wanted["oid"] not in self.objects:
                upload = {"href": f"{self.endpoint}/lfs/{wanted['oid']}"}
                wanted = {**wanted, "actions": {"upload": upload, "verify": {"href": f"{self.endpoint}/lfs/verify"}}}
            objects.append(wanted)
        return {"transfer": "basic", "objects": objects}, {}

    def _put(self, oid: str, body: bytes) -> tuple[Any, dict[str, str]]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise RefusalError(400, "the content does not have the announced sha256")
        self.objects[oid] = body
        return {}, {}

    def _commit(self, repo_id: str, repo: Repo, body: bytes) -> tuple[Any, dict[str, str]]:
        files = dict(repo.files)
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                if value.get("parentCommit", repo.commits[-1]) != repo.commits[-1]:
                    raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
            elif item["key"] == "file":
                files[value["path"]] = (False, base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    raise RefusalError(400, "large file was not uploaded")
                files[value["path"]] = (True, self.objects[value["oid"]])
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise RefusalError(400, f"unknown operation {item['key']}")
        repo.files = files
        repo.commits.append(hashlib.sha1(repo.commits[-1].encode() + body).hexdigest())
        url = f"{self.endpoint}/datasets/{repo_id}/commit/{repo.commits[-1]}"
        return {"commitUrl": url, "commitOid": repo.commits[-1], "hookOutput": ""}, {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = self.headers.get("authorization", "")
                try:
                    answer, headers = hub.answer(self.command, self.path, token, body)
                    status, data = 200, json.dumps(answer).encode()
                except RefusalError as e:
                    status, headers, data = e.status, {"X-Error-Message": e.message}, json.dumps(e.answer).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = _serve  # noqa: N815  names that http.server looks for

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        return Handler
