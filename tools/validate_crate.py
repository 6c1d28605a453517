"""Validates a crate that `steadyspike report --crate` wrote, without a network.

With the tools of `make audit`: build/audit/bin/python tools/validate_crate.py FOLDER
The exit status is 1 if a requirement of Workflow Run Crate is not met. Recommendations are printed.
"""

import sys
from importlib.resources import files

import requests
from rocrate_validator.models import Severity, ValidationSettings
from rocrate_validator.services import validate
from rocrate_validator.utils.http import HttpRequester

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def _local(self: HttpRequester, url: str, **options: object) -> requests.Response:
    """The context of RO-Crate 1.1, which the package rocrate holds; nothing else."""
    if url != CONTEXT:
        raise requests.ConnectionError(f"{url}: this tool uses no network")
    response = requests.Response()
    response.status_code, response.url = 200, url
    response.headers["Content-Type"] = "application/ld+json"
    response._content = (files("rocrate") / "data/ro-crate.jsonld").read_bytes()
    return response


def main(folder: str) -> int:
    HttpRequester.get = HttpRequester.head = _local
    settings = ValidationSettings(
        rocrate_uri=folder,
        profile_identifier="workflow-run-crate",
        requirement_severity=Severity.RECOMMENDED,
        skip_availability_check=True,
    )
    result = validate(settings)
    missed = 0
    for issue in result.get_issues():
        missed += issue.severity == Severity.REQUIRED
        print(f"{issue.severity.name}: {issue.check.identifier}: {issue.message}")
    print(f"{folder}: {'not valid' if missed else 'valid'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
