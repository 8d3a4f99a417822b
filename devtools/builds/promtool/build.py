"""The real promtool, built from the Go module that go.mod names: a few minutes, once per machine.

It checks and tests the rules of charts/lethe/files/alerts.yaml. Run `python -m
devtools.builds.promtool.build` to have it built, or call `promtool()`.
"""

from pathlib import Path

from devtools.builds.go import program

HERE = Path(__file__).parent
MODULE = "github.com/prometheus/prometheus"


def promtool() -> Path:
    """Return the program, building it if this version has not been built yet.

    Raises `subprocess.CalledProcessError` when the build fails; its output has been shown by then.
    """
    return program(
        f"{MODULE}/cmd/promtool",
        of=MODULE,
        module=HERE,
        version_at="github.com/prometheus/common/version.Version",
        tags="remove_all_sd",  # without the clouds' service discoveries, which rules have no use for
    )


if __name__ == "__main__":
    print(promtool())
