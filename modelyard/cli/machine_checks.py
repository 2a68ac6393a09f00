"""What `modelyard doctor` asks of the machine: files, disks, git, certificates. Creates nothing."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryFile

from cryptography import x509

from core.errors import SettingsError
from core.settings import Settings
from gitserver.process import GitFailed, GitMissing, GitRunner
from gitserver.quarantine import orphaned_quarantines, sweep_quarantines
from hooks import programs
from hooks.plugins import plugin_names
from modelyard.cli.findings import Finding, failure, fine, fixed, private, warning
from modelyard.push_hooks import programs_directory
from modelyard.services import SEALING_KEY, host_key_path
from modelyard.tls import Certificate
from sshd.host_key import fingerprint

_OLDEST_GIT = (2, 36)
_RECOMMENDED_GIT = (2, 50)
_SCARCE_BYTES = 1024**3
_LOW_BYTES = 10 * 1024**3
_CERTIFICATE_NOTICE = timedelta(days=14)


def check_data_directory(settings: Settings, *, fix: bool) -> list[Finding]:
    """The data directory, and whether others can read its secrets."""
    directory = settings.data_dir
    if not directory.is_dir():
        remedy = "start the server once, or name another directory with --data"
        return [failure("data", f"there is no directory {directory}", remedy)]
    findings = private("data", [directory], fix=fix)
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        remedy = "run modelyard as that user, or files will appear that the server cannot read"
        findings.append(
            warning("data", f"{directory} belongs to the user id {owner}, this is another", remedy)
        )
    keys = {directory / SEALING_KEY, host_key_path(settings)}
    if settings.http.key:
        keys.add(Path(settings.http.key).absolute())
    return findings + private("keys", sorted(keys), fix=fix)


def check_cache(settings: Settings, *, fix: bool) -> list[Finding]:
    """Whether the cache can be written, and what dead processes left there."""
    directory = settings.cache_dir
    if not directory.is_dir():
        return [fine("cache", f"{directory} will be made when it is needed")]
    try:
        with TemporaryFile(dir=directory) as file:
            file.write(b"probe")
    except OSError as error:
        remedy = f"give the user of the server the right to write to {directory}, or free space"
        return [failure("cache", f"{directory} cannot be written: {error.strerror}", remedy)]
    findings = [fine("cache", f"{directory} can be written")]
    orphans = orphaned_quarantines(directory)
    if orphans:
        message = f"{len(orphans)} quarantines of pushes that never ended"
        if fix:
            sweep_quarantines(directory)
            findings.append(fixed("cache", message, "deleted them"))
        else:
            findings.append(warning("cache", message, "modelyard doctor --fix"))
    return findings


def check_hooks(settings: Settings) -> list[Finding]:
    """The operator's hook programs and the plug-ins, where there are any."""
    findings = [fine("hooks", f"plug-in {name}") for name in plugin_names()]
    directory = programs_directory(settings.hooks)
    if directory is None:
        return findings
    remedy = "until then, the server does not start"
    wrong = [failure("hooks", problem, remedy) for problem in programs.problems(directory)]
    return findings + (wrong or [fine("hooks", f"the programs in {directory} can be run")])


def check_disks(settings: Settings) -> list[Finding]:
    """The space that is left, once for each file system."""
    places = [settings.data_dir, settings.cache_dir]
    if settings.storage.kind == "local":
        places.append(settings.store_dir)
    findings: dict[int, Finding] = {}
    for wanted in places:
        place = next(path for path in (wanted, *wanted.parents) if path.exists())
        free = shutil.disk_usage(place).free
        message = f"{free / 1024**3:.1f} GiB free for {place}"
        if free < _SCARCE_BYTES:
            finding = failure("disk", message, "free space now; pushes are about to fail")
        elif free < _LOW_BYTES:
            finding = warning("disk", message, "free space, or move [storage] path or [git] cache")
        else:
            finding = fine("disk", message)
        findings.setdefault(place.stat().st_dev, finding)
    return list(findings.values())


async def check_git(settings: Settings) -> list[Finding]:
    """The version of the git executable."""
    remedy = f"install git {_dotted(_RECOMMENDED_GIT)} or newer, or name one in [git] executable"
    try:
        version = await GitRunner(settings.git.executable).version()
    except (GitMissing, GitFailed) as error:
        return [failure("git", str(error), remedy)]
    message = f"git {_dotted(version)}"
    if version < _OLDEST_GIT:
        return [failure("git", f"{message} is too old", remedy)]
    if version < _RECOMMENDED_GIT:
        return [warning("git", f"{message} works; newer ones are faster and safer", remedy)]
    return [fine("git", message)]


def check_host_key(settings: Settings) -> list[Finding]:
    """The key by which SSH clients know this server."""
    if not settings.ssh.enabled:
        return [fine("ssh", "the SSH face is off")]
    path = host_key_path(settings)
    if not path.exists():
        return [fine("ssh", "a host key will be made at the first start")]
    try:
        return [fine("ssh", f"host key {fingerprint(path)}")]
    except SettingsError as error:
        return [failure("ssh", error.message, "restore the key from a backup; a new one alarms every client")]


def check_certificate(settings: Settings) -> list[Finding]:
    """The certificate of the HTTP face, and whether passwords travel unencrypted."""
    http = settings.http
    if not http.cert:
        return _check_exposure(settings)
    try:
        _ = Certificate(Path(http.cert), Path(http.key))
        certificate = x509.load_pem_x509_certificate(Path(http.cert).read_bytes())
    except (SettingsError, OSError, ValueError) as error:
        return [failure("tls", str(error), "give a PEM certificate and the key that belongs to it")]
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    message = f"the certificate ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if left <= timedelta():
        return [failure("tls", message, "replace it, then send the server SIGHUP")]
    if left < _CERTIFICATE_NOTICE:
        return [warning("tls", message, "replace it, then send the server SIGHUP")]
    return [fine("tls", message)]


def check_environment() -> list[Finding]:
    """Whether the environment would kill the server."""
    armed = os.environ.get("MODELYARD_FAILPOINT")
    if armed:
        return [failure("environment", f"MODELYARD_FAILPOINT={armed} kills the server", "unset it")]
    return []


def _check_exposure(settings: Settings) -> list[Finding]:
    host = settings.http.listen.rpartition(":")[0].strip("[]")
    if _is_loopback(host) or settings.http.public_url.startswith("https://"):
        return [fine("tls", "off; nothing leaves this machine unencrypted by itself")]
    remedy = "set [http] cert and key, or public_url to the https address of the proxy in front"
    message = f"{settings.http.listen} is open to the network without TLS; passwords can be read there"
    return [warning("tls", message, remedy)]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
