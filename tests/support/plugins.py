"""Plug-ins as installed packages: a directory of distributions for `sys.path` or PYTHONPATH."""

from pathlib import Path


def install_plugin(site: Path, name: str, source: str, *, group: str = "modelyard.hooks") -> str:
    """Installs a module whose function `hooks` is the entry point `name`; returns the module's name."""
    module = f"plugin_{name.replace('-', '_')}"
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:hooks\n")
    return module
