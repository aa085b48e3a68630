"""spectag doctor."""

from dataclasses import asdict
from itertools import groupby

from spectag.cli.options import Json
from spectag.cli.terminal import print_json

_PROBLEM_STATUS = 1


def doctor_command(*, json_output: Json = False) -> int:
    """Show what is installed, what else there is, and how to get it.

    Lists versions, devices, how fast they run a small network, extras, the cache, published models and microphones.
    What is not here, but optional, has a purpose and the command that brings it. Nothing is downloaded or installed.
    The exit status is 1 if something is broken.

    Parameters
    ----------
    json_output
        Print the findings as JSON.
    """
    from spectag.reporting.diagnosis import diagnose

    findings = diagnose()
    has_problem = any(finding.state == "problem" for finding in findings)
    if json_output:
        print_json([asdict(finding) for finding in findings])
        return _PROBLEM_STATUS if has_problem else 0
    for topic, of_topic in groupby(findings, key=lambda finding: finding.topic):
        print(topic)
        for finding in of_topic:
            print(f"  {finding.state:<8}  {finding.text}")
            if finding.advice:
                print(f"            -> {finding.advice}")
    return _PROBLEM_STATUS if has_problem else 0
