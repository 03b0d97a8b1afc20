"""What pip-audit says of the tested set: `python -m tests.torture.trust.audit` asks and judges.

pip-audit ends well when it could look nothing up; here that is a failure.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.torture.trust.licences import PINS

COMMAND = [
    *("-m", "pip_audit", "--requirement", str(PINS), "--no-deps", "--disable-pip"),
    *("--format", "json", "--progress-spinner", "off"),
]


@dataclass(frozen=True)
class Audit:
    """An answer of pip-audit.

    Attributes:
        checked: Packages that were looked up.
        skipped: Package: why it was not.
        vulnerable: `package version: advisory, fixed in ...`, one for each advisory.
    """

    checked: int
    skipped: dict[str, str]
    vulnerable: list[str]

    @property
    def passed(self) -> bool:
        """Whether everything was looked up and nothing found."""
        return self.checked > 0 and not self.skipped and not self.vulnerable


def read(answer: dict[str, Any]) -> Audit:
    """Read pip-audit's JSON."""
    checked, skipped, vulnerable = 0, {}, []
    for package in answer["dependencies"]:
        if "skip_reason" in package:
            skipped[package["name"]] = package["skip_reason"]
            continue
        checked += 1
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            name = f"{package['name']} {package['version']}"
            vulnerable.append(f"{name}: {found['id']}, fixed in {fixed}")
    return Audit(checked, skipped, vulnerable)


def main() -> int:
    done = subprocess.run([sys.executable, *COMMAND], capture_output=True, text=True)
    if not done.stdout.strip():
        print(done.stderr.strip()[-2000:], file=sys.stderr)
        return 2
    found = read(json.loads(done.stdout))
    for line in found.vulnerable:
        print(line)
    print(
        f"{found.checked} packages looked up, {len(found.vulnerable)} advisories, "
        f"{len(found.skipped)} not looked up"
    )
    for name, reason in [*found.skipped.items()][:5]:
        print(f"  {name}: {reason}")
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
