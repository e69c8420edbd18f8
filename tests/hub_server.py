"""The part of the Hugging Face Hub that datasets need, on loopback: huggingface_hub's own client talks to it."""

import base64
import hashlib
import io
import json
import threading
from dataclasses import dataclass, field

from flask import Flask, Response, jsonify, request, send_file
from werkzeug.serving import make_server

READER, WRITER = "hf_reader", "hf_writer"  # tokens


@dataclass
class Repository:
    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [("0" * 40, {})])
    tags: dict[str, str] = field(default_factory=dict)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        wanted = self.tags.get(revision, revision)
        if wanted in ("main", "HEAD"):
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == wanted), None)


class HubServer:
    """Repositories in memory, behind the hub's HTTP interface."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # large files, by their hash
        self.uploads: list[str] = []  # hashes, as they were uploaded
        self.requests: list[str] = []
        self.fail_after: int | None = None  # downloads until the connection is cut
        self.server = make_server("127.0.0.1", 0, self._application(), threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def _application(self) -> Flask:
        app = Flask("hub")
        api = "/api/datasets/<organisation>/<name>"

        @app.before_request
        def note():
            self.requests.append(f"{request.method} {request.path}")
            if request.method in ("POST", "PUT", "DELETE") and not self._may_write():
                return error(403, None, "this token may not write")

        @app.post("/api/repos/create")
        def create():
            body = request.json
            repo_id = f"{body['organization']}/{body['name']}"
            if repo_id in self.repositories:
                answer = jsonify(error="exists", url=f"{self.url}/datasets/{repo_id}")
                answer.status_code = 409
                return answer
            private = body.get("private") is True or body.get("visibility") == "private"
            self.repositories[repo_id] = Repository(private=private)
            return jsonify(url=f"{self.url}/datasets/{repo_id}", name=repo_id, id=repo_id)

        @app.get("/api/datasets")
        def listing():
            author, mark = request.args.get("author"), request.args.get("filter")
            found = []
            for repo_id, repository in self.repositories.items():
                card = repository.commits[-1][1].get("README.md", b"").decode()
                if (author is None or repo_id.startswith(f"{author}/")) and (mark is None or f"- {mark}\n" in card):
                    found.append({"id": repo_id, "sha": repository.commits[-1][0], "private": repository.private})
            return jsonify(found)

        @app.get(api)
        @app.get(f"{api}/revision/<revision>")
        def info(organisation, name, revision="main"):
            found = self._find(organisation, name, revision)
            if isinstance(found, Response):
                return found
            sha, files = found
            siblings = [{"rfilename": path} for path in files]
            return jsonify(id=f"{organisation}/{name}", sha=sha, private=False, tags=[], siblings=siblings)

        @app.get(f"{api}/tree/<revision>")
        def tree(organisation, name, revision):
            found = self._find(organisation, name, revision)
            if isinstance(found, Response):
                return found
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in found[1].items()
            ]
            return jsonify(entries)

        @app.get(f"{api}/refs")
        def references(organisation, name):
            repository = self.repositories[f"{organisation}/{name}"]
            tags = [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha} for tag, sha in repository.tags.items()
            ]
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.commits[-1][0]}
            return jsonify(branches=[branch], tags=tags, converts=[])

        @app.post(f"{api}/tag/<revision>")
        def tag(organisation, name, revision):
            repository = self.repositories[f"{organisation}/{name}"]
            if request.json["tag"] in repository.tags:
                return error(409, None, "tag exists")
            repository.tags[request.json["tag"]] = repository.files(revision)[0]
            return jsonify({})

        @app.delete(f"{api}/tag/<revision>")
        def untag(organisation, name, revision):
            del self.repositories[f"{organisation}/{name}"].tags[revision]
            return jsonify({})

        @app.post("/api/validate-yaml")
        def validate():
            return jsonify(errors=[], warnings=[])

        @app.post(f"{api}/preupload/<revision>")
        def preupload(organisation, name, revision):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith((".hdf5", ".parquet", ".png")) else "regular",
                    "shouldIgnore": False,
                }
                for file in request.json["files"]
            ]
            return jsonify(files=modes)

        @app.post("/datasets/<organisation>/<name>.git/info/lfs/objects/batch")
        def batch(organisation, name):
            answers = []
            for wanted in request.json["objects"]:
                answer = dict(wanted)
                if wanted["oid"] not in self.objects:
                    answer["actions"] = {"upload": {"href": f"{self.url}/lfs/{wanted['oid']}"}}
                answers.append(answer)
            return jsonify(transfer="basic", objects=answers)

        @app.put("/lfs/<oid>")
        def upload(oid):
            content = request.get_data()
            if hashlib.sha256(content).hexdigest() != oid:
                return error(400, None, "not the content of that hash")
            self.objects[oid] = content
            self.uploads.append(oid)
            return Response(status=200)

        @app.post(f"{api}/commit/<revision>")
        def commit(organisation, name, revision):
            repository = self.repositories[f"{organisation}/{name}"]
            head, files = repository.commits[-1]
            files = dict(files)
            for line in request.get_data().splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header" and value.get("parentCommit", head) != head:
                    return error(412, None, "a commit has happened since")
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                if entry["key"] == "lfsFile":
                    files[value["path"]] = self.objects[value["oid"]]
                if entry["key"] == "deletedFile":
                    del files[value["path"]]
            sha = hashlib.sha1(head.encode() + request.get_data()).hexdigest()
            repository.commits.append((sha, files))
            return jsonify(commitUrl=f"{self.url}/datasets/{organisation}/{name}/commit/{sha}", commitOid=sha)

        @app.get("/datasets/<organisation>/<name>/resolve/<revision>/<path:path>")
        def resolve(organisation, name, revision, path):
            found = self._find(organisation, name, revision)
            if isinstance(found, Response):
                return found
            sha, files = found
            if path not in files:
                return error(404, "EntryNotFound", f"{path} does not exist")
            if request.method == "GET" and self.fail_after is not None:
                if self.fail_after == 0:
                    return error(500, None, "out of order")
                self.fail_after -= 1
            answer = send_file(io.BytesIO(files[path]), mimetype="application/octet-stream", conditional=True)
            answer.headers["X-Repo-Commit"] = sha
            answer.set_etag(hashlib.sha256(files[path]).hexdigest())
            return answer

        def error(status, code, message):
            answer = jsonify(error=message)
            answer.status_code = status
            answer.headers["X-Error-Message"] = message
            if code is not None:
                answer.headers["X-Error-Code"] = code
            return answer

        self._error = error
        return app

    def _may_write(self) -> bool:
        path = request.path
        return request.headers.get("Authorization") == f"Bearer {WRITER}" or path.startswith("/lfs/")

    def _find(self, organisation, name, revision):
        repository = self.repositories.get(f"{organisation}/{name}")
        known = request.headers.get("Authorization") in (f"Bearer {READER}", f"Bearer {WRITER}")
        if repository is None or (repository.private and not known):
            return self._error(404 if known else 401, "RepoNotFound", "Repository Not Found")
        found = repository.files(revision)
        return self._error(404, "RevisionNotFound", "no such revision") if found is None else found
