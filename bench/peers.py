"""The peers: one small class each."""

import getpass
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from minio import Minio

from bench.gitclient import git, make_key
from bench.peer import CACHE, DEBIAN, Missing, Peer, find

_CORE = Path("/usr/lib/git-core/git-http-backend"), Path("/usr/libexec/git-core/git-http-backend")


class Apache(Peer):
    """Apache's event MPM with `git http-backend` behind mod_cgid: Git over HTTP as its manual sets it up."""

    name = "git http-backend"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.repositories = self.folder / "git"
        self.repositories.mkdir()
        self._program = find(DEBIAN / "usr/sbin/apache2", "/usr/sbin/apache2")
        modules = find(DEBIAN / "usr/lib/apache2/modules", "/usr/lib/apache2/modules")
        names = ("mpm_event", "unixd", "authz_core", "alias", "env", "cgid", "setenvif")
        loads = "".join(
            f"LoadModule {name}_module {modules}/mod_{name}.so\n"
            for name in names
            if (modules / f"mod_{name}.so").exists()
        )
        (self.folder / "httpd.conf").write_text(
            f"""{loads}
ServerName localhost
Listen 127.0.0.1:{self.port}
PidFile {self.folder}/pid
ErrorLog {self.folder}/error
ScriptSock {self.folder}/cgisock
{"User nobody" if os.geteuid() == 0 else ""}
Timeout 600
SetEnv GIT_PROJECT_ROOT {self.repositories}
SetEnv GIT_HTTP_EXPORT_ALL 1
SetEnv GIT_CONFIG_COUNT 2
SetEnv GIT_CONFIG_KEY_0 safe.directory
SetEnv GIT_CONFIG_VALUE_0 *
SetEnv GIT_CONFIG_KEY_1 http.receivepack
SetEnv GIT_CONFIG_VALUE_1 true
SetEnvIf Git-Protocol ".*" GIT_PROTOCOL=$0
ScriptAlias /git/ {find(*_CORE)}/
<Directory "/">
  Require all granted
</Directory>
"""
        )

    def command(self) -> Sequence[str | Path]:
        return [self._program, "-d", self.folder, "-f", self.folder / "httpd.conf", "-DFOREGROUND"]

    def environment(self) -> Mapping[str, str]:
        return {"LD_LIBRARY_PATH": str(DEBIAN / "usr/lib/x86_64-linux-gnu")}

    def add(self, name: str, source: Path | None = None) -> str:
        """A repository, a copy of `source` or empty; returns its URL."""
        path = self.repositories / f"{name}.git"
        if source:
            shutil.copytree(source, path)
        else:
            git(self.repositories, "init", "-q", "--bare", "-b", "main", path)
        if os.geteuid() == 0:  # Apache refuses to serve as root
            for one in (path, *path.rglob("*")):
                shutil.chown(one, "nobody", "nogroup")
        return f"{self.url}/git/{name}.git"


class Nginx(Peer):
    """nginx serving one directory with sendfile."""

    name = "nginx sendfile"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._program = find(DEBIAN / "usr/sbin/nginx", "/usr/sbin/nginx")
        self.files = self.folder / "files"
        self.files.mkdir()
        temporary = "\n".join(
            f"  {kind}_temp_path {self.folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"""daemon off;
user root;
pid {self.folder}/pid;
error_log {self.folder}/error;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
{temporary}
  access_log off;
  sendfile on;
  tcp_nopush on;
  server {{ listen 127.0.0.1:{self.port}; location / {{ root {self.files}; }} }}
}}
"""
        )

    def command(self) -> Sequence[str | Path]:
        return [self._program, "-c", self.folder / "nginx.conf", "-p", self.folder]

    def add(self, file: Path) -> str:
        """Serves a file, by another link to it; returns its URL."""
        target = self.files / file.name
        if not target.exists():
            target.hardlink_to(file)
        return f"{self.url}/{file.name}"


class OpenSsh(Peer):
    """OpenSSH's sshd, which starts git's own programs."""

    name = "OpenSSH sshd"

    def __init__(self, folder: Path, public_key: str) -> None:
        super().__init__(folder)
        self._program = find(DEBIAN / "usr/sbin/sshd", "/usr/sbin/sshd")
        if os.geteuid() == 0 and not any(one.pw_name == "sshd" for one in pwd.getpwall()):
            raise Missing("root's sshd wants a system user `sshd`: install openssh-server, or do not be root")
        self.repositories = self.folder / "git"
        self.repositories.mkdir()
        key = make_key(self.folder / "host")
        (self.folder / "authorized").write_text(public_key)
        (self.folder / "authorized").chmod(0o600)
        Path("/run/sshd").mkdir(exist_ok=True)
        (self.folder / "sshd.conf").write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {key}
AuthorizedKeysFile {self.folder}/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
PidFile {self.folder}/pid
AcceptEnv GIT_PROTOCOL
MaxStartups 200
MaxSessions 200
"""
        )

    def command(self) -> Sequence[str | Path]:
        return [self._program, "-D", "-e", "-f", self.folder / "sshd.conf"]

    def environment(self) -> Mapping[str, str]:
        return {"LD_LIBRARY_PATH": str(DEBIAN / "usr/lib/x86_64-linux-gnu")}

    def add(self, name: str, source: Path) -> str:
        """A copy of a repository; returns its URL."""
        path = self.repositories / f"{name}.git"
        shutil.copytree(source, path)
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"


class Giftless(Peer):
    """giftless, the other LFS server in Python, under gunicorn with one worker."""

    name = "giftless"

    def command(self) -> Sequence[str | Path]:
        program = find(CACHE / "giftless/bin/gunicorn")
        return [program, "-w", "1", "-b", f"127.0.0.1:{self.port}", "giftless.wsgi_entrypoint:app"]

    def environment(self) -> Mapping[str, str]:
        config = self.folder / "giftless.yaml"
        config.write_text(
            "AUTH_PROVIDERS: ['giftless.auth.allow_anon:read_write']\n"
            "TRANSFER_ADAPTERS:\n  basic:\n    options:\n      storage_options:\n"
            f"        path: {self.folder}/storage\n"
        )
        return {"GIFTLESS_CONFIG_FILE": str(config), "PYTHONWARNINGS": "ignore"}

    def batch_url(self) -> str:
        return f"{self.url}/ann/model.git/info/lfs/objects/batch"


class MinioServer(Peer):
    """MinIO: where objects lie, and the peer of transfers that go past Modelyard."""

    name = "MinIO"
    access_key = "bench-access"
    secret_key = "bench-secret-key"

    def command(self) -> Sequence[str | Path]:
        program = find(CACHE.parent / "bin" / "minio")
        return [program, "server", self.folder / "drive", "--address", f"127.0.0.1:{self.port}", "--quiet"]

    def environment(self) -> Mapping[str, str]:
        return {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }

    def client(self) -> Minio:
        """A client of it, with the bucket `bench`."""
        client = Minio(
            f"127.0.0.1:{self.port}", access_key=self.access_key, secret_key=self.secret_key, secure=False
        )
        if not client.bucket_exists("bench"):
            client.make_bucket("bench")
        return client
